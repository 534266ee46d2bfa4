"""Files of the VGG Image Annotator: every version and shape, and faults as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.base import Record
from segsweep.data.formats import masks
from segsweep.data.formats.instances import Defect, polygon
from segsweep.data.formats.via import ViaRegion, read
from tests.layouts import BLOCK
from tests.small_coco import real_folder

CASES = {
    "v1_regions_dict": [],
    "v2_regions_list": [],
    "v2_project": [],
    "shapes": ["a point is no area"],
    "polyline_open": ["a polyline of 2 different points has no area"],
    "labels": ["has no label", "has no label"],
    "unequal_points": ["has 3 values of x and 4 of y"],
    "missing_and_stale": [],
}


def usable(region: ViaRegion, picture: Path) -> bool:
    """Whether a region is an area of its picture, which exists."""
    if not picture.is_file():
        return False
    with Image.open(picture) as image:
        record = Record(0, "", image.height, image.width, [])
    try:
        return bool(polygon(region.polygon, record))
    except Defect:
        return False


@pytest.mark.parametrize("case", CASES)
def test_odd_files_give_what_can_be_used(case: str) -> None:
    folder = real_folder("defects")
    index = {entry["file"]: entry for entry in json.loads((folder / "index.json").read_text())}
    images, faults = read(folder / "via" / f"{case}.json")
    regions = [(r, folder / "images" / image.file) for image in images for r in image.regions]
    number = sum(usable(region, picture) for region, picture in regions)
    assert number == index[f"via/{case}.json"]["usable_annotations"]
    assert [fault.reason for fault in faults] == CASES[case]


def test_a_real_file_of_version_1(tmp_path: Path) -> None:
    folder = real_folder("rice_leaf")
    useless = ["a polygon of 1 different points has no area", "has no label"]
    for split, told in {"train": useless, "val": []}.items():
        images, faults = read(folder / "original" / split / "via_region_data.json")
        expected = json.loads((folder / f"{split}.json").read_text())
        assert {i.file for i in images} == {i["file_name"] for i in expected["images"]}
        assert sum(len(i.regions) for i in images) == len(expected["annotations"])
        assert [fault.reason for fault in faults] == told
        names = {r.attributes["class_id"] for i in images for r in i.regions}
        assert names <= {c["name"] for c in expected["categories"]}


def written(folder: Path, *shapes: dict[str, Any], **attributes: Any) -> Path:
    regions = [{"shape_attributes": s, "region_attributes": attributes} for s in shapes]
    path = folder / "via.json"
    path.write_text(json.dumps({"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": regions}}))
    return path


def test_round_shapes_have_the_area_of_theirs(tmp_path: Path) -> None:
    circle = {"name": "circle", "cx": 40, "cy": 40, "r": 30}
    turned = {"name": "ellipse", "cx": 40, "cy": 40, "rx": 30, "ry": 10, "theta": np.pi / 6}
    ((image,), faults) = read(written(tmp_path, circle, turned))
    assert not faults  # no region has a label, so none misses it
    found = [masks.to_mask([region.polygon], (80, 80)) for region in image.regions]
    assert found[0].sum() == pytest.approx(np.pi * 30 * 30, rel=0.01)
    assert found[1].sum() == pytest.approx(np.pi * 30 * 10, rel=0.02)
    rows, columns = np.nonzero(found[1])
    slope = np.polyfit(columns, rows, 1)[0]
    assert 0.3 < slope < np.tan(np.pi / 6) + 0.1  # down to the right, as y goes down


def test_a_gap_is_told_in_parts_of_the_size(tmp_path: Path) -> None:
    closed, open_ = [*BLOCK, *BLOCK[:2]], BLOCK
    shapes = [
        {"name": "polyline", "all_points_x": p[0::2], "all_points_y": p[1::2]}
        for p in (closed, open_)
    ]
    ((image,), _) = read(written(tmp_path, *shapes, kind={"a": True, "b": False, "c": True}))
    assert [round(region.gap, 3) for region in image.regions] == [0, round(20 / 800**0.5, 3)]
    assert image.regions[0].attributes == {"kind": "a,c"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds a list"),
        ("{", "not valid JSON"),
        ('{"images": [], "annotations": []}', "no entries with filename and regions"),
        ('{"_via_img_metadata": []}', "no entries with filename and regions"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = ("name", "all_points_x", "all_points_y", "x", "y", "width", "height", "cx", "cy", "r", "rx")
NAMES = st.sampled_from(["polygon", "polyline", "rect", "circle", "ellipse", "point"])
SHAPE = st.fixed_dictionaries({"name": NAMES}, optional=dict.fromkeys(KEYS[1:], JSON)) | JSON
REGION = (
    st.fixed_dictionaries({}, optional={"shape_attributes": SHAPE, "region_attributes": JSON})
    | JSON
)
ENTRY = st.fixed_dictionaries(
    {"filename": st.text(max_size=3), "regions": st.lists(REGION, max_size=3)}
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=3))
def test_no_content_is_a_crash(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({**content, "a.jpg1": {"filename": "a.jpg", "regions": []}}))
    images, faults = read(path)
    for image in images:
        for region in image.regions:
            assert len(region.polygon) >= 6
            assert np.isfinite(region.polygon).all()
    assert all(fault.reason for fault in faults)

"""COCO files: every form of mask and picture is read, every fault is named before training."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS
from segsweep.data.formats import masks
from segsweep.data.sets.coco import Coco
from tests.small_coco import BLOCK, HEIGHT, REAL_SETS, WIDTH, content, real, write

MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[8:30, 10:40] = True


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The default content after a change."""
    changed = copy.deepcopy(content())
    change(changed)
    return changed


def first(segmentation: Any, **more: Any) -> dict[str, Any]:
    """The default content with another segmentation of the first annotation."""
    return changed(lambda c: c["annotations"][0].update(segmentation=segmentation, **more))


def test_classes_are_categories_by_rising_id(tmp_path: Path) -> None:
    data = write(tmp_path)
    assert data.classes() == ["nut", "bolt"]
    assert data.category_ids() == [4, 9]
    assert [a.category for r in data.records("val") for a in r.annotations] == [1, 0]
    assert [r.file for r in data.records("val")] == ["first.png", "sub/second.png"]
    assert data.image(data.records("val")[1])[8:30, 10:40].min() == 255


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE: lengths of runs down the columns, beginning with zeros."""
    flat = mask.flatten(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def test_every_form_of_segmentation_gives_the_same_mask(tmp_path: Path) -> None:
    left, right = [10, 8, 25, 8, 25, 30, 10, 30], [25, 8, 40, 8, 40, 30, 25, 30]
    compressed = masks.encode(MASK[None])[0]
    forms = [[BLOCK], [left, right], {"size": [HEIGHT, WIDTH], "counts": runs(MASK)}, compressed]
    for number, form in enumerate(forms):
        record = write(tmp_path / str(number), train=first(form)).records("train")[0]
        got = masks.to_mask(record.annotations[0].segmentation, (HEIGHT, WIDTH))
        assert (got == MASK).all()


@settings(deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = masks.encode(mask[None])[0]
    json.dumps(rle)
    assert (masks.to_mask(rle, mask.shape) == mask).all()
    assert (masks.to_mask({"size": [*mask.shape], "counts": runs(mask)}, mask.shape) == mask).all()
    assert masks.area(rle) == mask.sum()
    assert masks.filled(rle) == mask.size
    expected = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle["counts"] == expected["counts"].decode()
    assert masks.bbox(rle) == oracle.toBbox(expected).tolist()


coordinates = st.lists(st.floats(-20, 60, width=32), min_size=6, max_size=16).filter(
    lambda points: len(points) % 2 == 0
)


@settings(max_examples=200, deadline=None)
@given(st.lists(coordinates, min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 40))
def test_polygons_cover_what_pycocotools_says(
    polygons: list[list[float]], height: int, width: int
) -> None:
    expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width)))
    assert (masks.to_mask(polygons, (height, width)) == expected.astype(bool)).all()


@pytest.mark.parametrize("name", REAL_SETS)
def test_real_sets_are_read_as_pycocotools_reads_them(name: str) -> None:
    data = real(name)
    for split in ("train", "val"):
        expected = COCO(str(data.found.parts[split][0]))
        records = data.records(split)
        assert [r.image_id for r in records] == [i["id"] for i in expected.dataset["images"]]
        assert sum(len(r.annotations) for r in records) == len(expected.anns)
        for record in records:
            assert data.image(record).shape == (record.height, record.width, 3)
            for a in record.annotations:
                theirs = expected.anns[a.id]
                mask = masks.to_mask(a.segmentation, (record.height, record.width))
                assert data.category_ids()[a.category] == theirs["category_id"]
                assert a.iscrowd == bool(theirs["iscrowd"])
                assert (mask == expected.annToMask(theirs).astype(bool)).all()


def annotated(**changes: Any) -> dict[str, Any]:
    return changed(lambda c: c["annotations"][1].update(changes))


def imaged(**changes: Any) -> dict[str, Any]:
    return changed(lambda c: c["images"][1].update(changes))


FAULTS: dict[str, tuple[Any, list[str]]] = {
    "not json": ('{"images": [\n {"id": }]}', ["line 2, column 9"]),
    "empty file": ("", ["line 1, column 1"]),
    "a list": ("[]", ["a list"]),
    "lfs pointer": ("version https://git-lfs.github.com/spec/v1", ["git lfs pull"]),
    "no annotations": ({"images": [], "categories": []}, ["annotations"]),
    "no images": (changed(lambda c: c.update(images=[], annotations=[])), ["no images"]),
    "image id twice": (imaged(id=7), ["image id occurs twice: 7"]),
    "annotation id twice": (annotated(id=11), ["annotation id occurs twice: 11"]),
    "no annotation": (changed(lambda c: c["annotations"].clear()), ["has no annotations"]),
    "all are crowds": (
        changed(lambda c: [a.update(iscrowd=1) for a in c["annotations"]]),
        ["iscrowd=1"],
    ),
    "all are broken": (
        changed(lambda c: [a.update(segmentation=[[1, 2]]) for a in c["annotations"]]),
        ["no annotation can be used"],
    ),
    "category id twice": (
        changed(lambda c: c["categories"][1].update(id=9)),
        ["category id occurs twice: 9"],
    ),
    "image id text": (imaged(id="seven"), ["seven", "whole number"]),
    "image of no size": (imaged(width=0), ["0x48"]),
    "image without name": (changed(lambda c: c["images"][0].pop("file_name")), ["file_name"]),
    "unknown category": (annotated(category_id=5), ["annotation 12", "category 5", "4, 9"]),
    "no image id": (changed(lambda c: c["annotations"][1].pop("image_id")), ["12", "image_id"]),
    "entry is no object": (changed(lambda c: c["annotations"].append(5)), ["annotation 5"]),
    "rle of another size": (
        annotated(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
        ["annotation 12", "[64, 48]"],
    ),
    "rle too long": (
        annotated(segmentation={"size": [HEIGHT, WIDTH], "counts": [1, HEIGHT * WIDTH]}),
        ["annotation 12", "3073"],
    ),
    "rle too short": (
        annotated(segmentation={"size": [HEIGHT, WIDTH], "counts": "jf0"}),
        ["annotation 12", "3072"],
    ),
    "rle is noise": (
        annotated(segmentation={"size": [HEIGHT, WIDTH], "counts": "!!"}),
        ["annotation 12"],
    ),
    "rle without counts": (annotated(segmentation={"size": [HEIGHT, WIDTH]}), ["12", "counts"]),
    "boxes only": (
        changed(lambda c: [a.pop("segmentation") for a in c["annotations"]]),
        ["boxes, not masks"],
    ),
    "lost picture": (imaged(file_name="sub/third.png"), ["1 of 2", "sub/third.png", "images"]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_faults_are_named_with_their_place(tmp_path: Path, fault: str, split: str) -> None:
    what, words = FAULTS[fault]
    data = write(tmp_path, **{split: what if isinstance(what, str) else json.dumps(what)})
    with pytest.raises(UserError) as error:
        data.records("train")
    for word in [f"{split}.json", *words]:
        assert word in str(error.value)


def test_classes_of_val_must_be_those_of_train(tmp_path: Path) -> None:
    fewer = changed(lambda c: (c["categories"].pop(1), c["annotations"].pop(1)))
    assert write(tmp_path / "fewer", val=fewer).records("val")[0].annotations[0].category == 1
    renamed = changed(lambda c: c["categories"][0].update(name="screw"))
    with pytest.raises(UserError, match="screw"):
        write(tmp_path / "renamed", val=renamed).classes()


USELESS: dict[str, Any] = {
    "fewer than 3 points": [[1, 1, 20, 20]],
    "no area": [[10, 10, 20, 20, 30, 30]],
    "outside the image": [[100, 100, 120, 100, 120, 120]],
    "no mask": None,
    "not finite": [[1, 2, float("nan"), 4, 5, 9]],
    "is not finite": [[1, 2, float("inf"), 4, 5, 9]],
    "far away": [[1, 2, 1e7, 4, 5, 9]],
    "odd number": [[1, 2, 3, 4, 5, 6, 7]],
    "neither polygons nor RLE": [["1", "2", "3", "4", "5", "6"]],
    "polygons nor RLE": [1, 2, 3, 4, 5, 6],
    "area": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
}


@pytest.mark.parametrize("useless", USELESS)
def test_useless_instances_are_left_out_and_counted(tmp_path: Path, useless: str) -> None:
    data = write(tmp_path, train=first(USELESS[useless]))
    with pytest.warns(UserWarning, match=rf"train\.json: 1 annotations left out.*{useless}.*: 11"):
        records = data.records("train")
    assert [len(r.annotations) for r in records] == [0, 1]


def test_what_is_left_out_is_told_in_one_warning_per_file(tmp_path: Path) -> None:
    what = first([[1, 1]])
    what["annotations"] += [{**what["annotations"][1], "id": 13, "image_id": 99}]
    what["annotations"] += [{**what["annotations"][1], "id": 14, "bbox": [10, 8, 40, 30]}]
    with pytest.warns(UserWarning, match=r"train\.json") as told:
        write(tmp_path, train=what).records("train")
    (message,) = [str(one.message) for one in told]
    for word in (
        "2 annotations left out",
        "13, 11",
        "image is not listed",
        "box is not that",
        "14",
    ):
        assert word in message


def test_a_wrong_box_is_replaced_by_that_of_the_mask(tmp_path: Path) -> None:
    data = write(tmp_path, train=annotated(bbox=[10, 8, 40, 30]))  # x, y, x, y
    with pytest.warns(UserWarning, match="box is not that of the mask"):
        assert data.records("train")[1].annotations[0].bbox == [10, 8, 30, 22]


def test_a_grouping_category_is_no_class(tmp_path: Path) -> None:
    def root(c: dict[str, Any]) -> None:
        c["categories"] += [{"id": 0, "name": "parts", "supercategory": "none"}]
        c["categories"][0]["supercategory"] = "parts"

    data = write(tmp_path, train=changed(root), val=changed(root))
    assert data.classes() == ["nut", "bolt"]
    (finding,) = (f for f in data.survey("train")[1] if f.code == "category-root")
    assert (finding.level, finding.ids) == ("note", [0])


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    same = changed(lambda c: c["categories"][0].update(name="nut"))
    with pytest.warns(UserWarning, match="same name"):
        assert write(tmp_path, train=same, val=same).classes() == ["nut", "nut (9)"]


def test_what_coco_does_not_require_is_filled_in(tmp_path: Path) -> None:
    def strip(c: dict[str, Any]) -> None:
        for key in ("bbox", "area", "iscrowd", "id"):
            c["annotations"][0].pop(key)
        c["annotations"][1].update(bbox=[10, 8, -3, 0], area=None)

    with pytest.warns(UserWarning, match=r"box is not that of the mask.*: 12"):
        records = write(tmp_path, train=changed(strip)).records("train")
    for record in records:
        (a,) = record.annotations
        assert (a.bbox, a.area, a.iscrowd) == ([10, 8, 30, 22], 660, False)


def test_places_can_be_named_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a/train.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"data\.train: no annotation file"):
        Coco(name="coco", root=str(tmp_path / "a")).records("train")
    named = Coco(
        name="coco",
        train=str(tmp_path / "elsewhere.json"),
        val=str(tmp_path / "a/val.json"),
        images=str(tmp_path / "a/images/sub"),
    )
    with pytest.raises(UserError, match=r"first\.png"):
        named.records("train")
    named = Coco(name="coco", root=str(tmp_path / "a"), train=str(tmp_path / "elsewhere.json"))
    assert len(named.records("train")) == 2


def test_layout_of_coco_itself_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").rename(tmp_path / f"annotations/instances_{split}2017.json")
        bare = content()
        bare["images"][1]["file_name"] = "second.png"  # below images/sub
        place = tmp_path / f"annotations/instances_{split}2017.json"
        place.write_text("\ufeff" + json.dumps(bare), encoding="utf-8")
    data = Coco(name="coco", root=str(tmp_path))
    assert data.records("val")[1].file == "sub/second.png"


def test_names_may_begin_at_images_where_there_is_no_val(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "val.json").unlink()
    data = Coco(name="coco", root=str(tmp_path), split="0.5")
    files = {record.file for split in SPLITS for record in data.records(split)}
    assert files == {"images/first.png", "images/sub/second.png"}


def test_a_file_name_that_fits_two_pictures_fits_none(tmp_path: Path) -> None:
    write(tmp_path, train=imaged(file_name="second.png"))
    (tmp_path / "images/more").mkdir()
    (tmp_path / "images/more/second.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 2 images"):
        Coco(name="coco", root=str(tmp_path)).records("train")


@pytest.mark.parametrize("override", ["", "data.root=nowhere"])
def test_missing_root_is_said_before_anything_is_queued(override: str) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        fingerprint(compose(["data=coco", *filter(None, [override])]))


def test_identity_is_the_content_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name, train=annotated(area=1) if name == "c" else None)
    a, b, c = (fingerprint(compose(["data=coco", f"data.root={tmp_path / n}"])) for n in "abc")
    assert a == b != c


def test_a_clean_set_gives_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path).records("train")

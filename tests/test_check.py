"""check-data: every defect is found by file and id; clean copies are clean; copies are found."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from segsweep.base.errors import UserError
from segsweep.check.duplicates import close_pairs
from segsweep.check.fix import clipped, fix
from segsweep.check.page import render
from segsweep.check.parts import Part, Single, joined, single
from segsweep.check.pictures import shared
from segsweep.check.report import described, look_at
from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record
from segsweep.data.findings import Finding
from segsweep.data.formats import masks
from segsweep.data.kinds import KINDS
from segsweep.data.sets.coco import Coco
from segsweep.verbs.check_data import main
from tests.small_coco import HEIGHT, REAL, WIDTH, content, real, real_folder, write

DEFECTS = REAL / "defects"

# case -> codes with their ids; notes that come with the small files are not repeated
EXPECTED: dict[str, dict[str, list[Any]]] = {
    "coco/clean": {},
    "coco/missing_image": {"picture-missing": ["does_not_exist.jpg"]},
    "coco/zero_area_polygon": {"no-area": [2]},
    "coco/short_polygon": {"short-polygon": [2], "odd-numbers": [3], "ring-dropped": [4]},
    "coco/polygon_outside": {"outside": [3], "sticks-out": [2, 4]},
    "coco/bbox_inconsistent": {"box-disagrees": [2, 3, 4, 5]},
    "coco/duplicate_annotation_ids": {"annotation-id-twice": [7]},
    "coco/annotation_id_zero": {"annotation-id-zero": [0]},
    "coco/duplicate_image_ids": {"image-id-twice": [1]},
    "coco/duplicate_file_names": {"image-file-twice": ["ok.jpg"]},
    "coco/rle_forms": {"rle-size": [3], "rle-broken": [4, 5]},
    "coco/iscrowd": {"crowd": [2, 3], "image-crowd-only": [2]},
    "coco/segmentation_missing": {"mask-missing": [2, 3, 4], "short-polygon": [5]},
    "coco/category_gaps": {"category-empty": [7]},
    "coco/category_unknown": {"category-unknown": [2]},
    "coco/category_root": {"category-root": [0]},
    "coco/category_duplicate_name": {"category-root": [0]},  # the first of the two groups
    "coco/category_unsorted": {},
    "coco/empty_image": {"image-empty": [2]},
    "coco/orphan_annotation": {"annotation-orphan": [2]},
    "coco/size_mismatch": {"picture-size": ["ok.jpg", "ok2.jpg"]},
    "coco/exif_orientation": {"picture-turned": ["exif6.jpg", "exif6.jpg"]},
    "coco/image_modes": {
        "picture-deep": ["gray16.png", "gray12in16.tif"],
        "picture-alpha": ["rgba.png"],
        "picture-suffix": ["jpeg_named.png"],
    },
    "coco/broken_images": {
        "picture-broken": [
            "truncated.jpg", "truncated.png", "zero_bytes.jpg", "text.jpg", "lfs_pointer.jpg"
        ]
    },
    "coco/path_forms": {
        "picture-missing": ["images/ok.jpg", "/data/somebody/else/ok2.jpg", "../images/ok.jpg"]
    },
    "coco/no_area_no_iscrowd": {"filled-in": [1, 2]},
    "coco/category_string_ids": {
        "category-id-text": ["1"], "image-id-text": ["img-1"], "annotation-id-text": ["a-1"]
    },
    "coco/nan_coordinates": {"not-finite": [1], "mask-form": [2]},
    "coco/truncated_json": {"file-unreadable": []},
    "coco/bom": {},
    "coco/lfs_pointer": {"file-unreadable": []},
    "coco/list_not_dict": {"file-unreadable": []},
    "coco/no_annotations_key": {"no-annotations": []},
    "via/v1_regions_dict": {},
    "via/v2_regions_list": {},
    "via/v2_project": {},
    "via/shapes": {"region-unusable": ["ok.jpg3406 region 3"]},
    "via/polyline_open": {
        "region-unusable": ["ok.jpg3406 region 2"], "polyline-open": ["ok.jpg3406 region 0"]
    },
    "via/labels": {"region-unusable": ["ok.jpg3406 region 1", "ok.jpg3406 region 2"]},
    "via/unequal_points": {
        "region-unusable": ["ok.jpg3406 region 0"], "outside": ["ok.jpg3406 region 1"]
    },
    "via/missing_and_stale": {"picture-missing": ["gone.jpg"], "picture-changed": ["ok2.jpg"]},
}  # fmt: skip
# Windows separators are understood, so one of the four path forms leads to its picture
BETTER = {"coco/path_forms": [2]}


def checked(data: Any) -> tuple[list[Finding], list[Any], list[tuple[Part, Any]]]:
    """Findings, ids of usable annotations, and what was looked at."""
    looks, _ = look_at(data, 2, quiet=True)
    findings = [finding for part, _ in looks for finding in part.findings()]
    every = [
        a
        for _, part_looks in looks
        for look in part_looks
        if look.usable
        for a in look.record.annotations
    ]
    return findings, [a.id for a in every if not a.iscrowd], looks


def by_code(findings: list[Finding]) -> dict[str, list[Any]]:
    return {finding.code: finding.ids for finding in findings}


def defect(case: str) -> Single:
    """A defect of the collection, or a skipped test."""
    folder = real_folder("defects")
    return single(folder / f"{case}.json", folder / "images")


def test_every_case_of_the_collection_is_expected() -> None:
    defect("coco/clean")
    cases = json.loads((DEFECTS / "index.json").read_text())
    assert [case["file"] for case in cases] == [f"{name}.json" for name in EXPECTED]
    usable = {case["file"]: case["usable_annotations"] for case in cases}
    for name in EXPECTED:
        _, ids, _ = checked(defect(name))
        wanted = BETTER.get(name, usable[f"{name}.json"])
        assert wanted in (ids, len(ids)), name


@pytest.mark.parametrize("case", EXPECTED)
def test_defects_are_found_by_file_and_id(case: str) -> None:
    findings, _, _ = checked(defect(case))
    found = by_code(findings)
    for code, ids in EXPECTED[case].items():
        assert found[code] == ids
    expected = {KINDS[code].level for code in EXPECTED[case]} - {"note"}
    extra = {"nothing-usable", "mostly-dropped", "twin", "image-file-twice", "polyline-open"}
    told = {f.level for f in findings if f.code not in extra - EXPECTED[case].keys()} - {"note"}
    assert told == expected
    for finding in findings:
        assert f"{case}.json" in finding.file
        assert finding.what
        assert finding.consequence
        assert finding.cure
        assert finding.kind.ids or not finding.ids


def test_overlap_is_what_several_objects_share() -> None:
    drawn = np.zeros((3, 10, 10), bool)
    drawn[0, :4], drawn[1, 2:6], drawn[2, 2:4] = True, True, True
    assert shared(masks.encode(drawn)) == pytest.approx(20 / 60)  # rows 2 and 3 of 0 to 5


def test_reading_for_training_refuses_what_is_fatal_and_only_that(tmp_path: Path) -> None:
    for case in (name for name in EXPECTED if name.startswith("coco/")):
        if EXPECTED[case].keys() == {"category-root"}:  # the clean file has other categories
            continue
        findings = defect(case).survey("train")[1]
        data = Coco(
            name="coco", images=str(DEFECTS / "images"),
            train=str(DEFECTS / f"{case}.json"), val=str(DEFECTS / "coco/clean.json"),
        )  # fmt: skip
        fatal = {f.code for f in findings if f.level == "fatal"}
        fatal |= {f.code for f in data.survey("val")[1] if f.level == "fatal"}
        if fatal:
            with pytest.raises(UserError, match=r"\.json: "):
                data.records("train")
        elif any(f.level == "warning" for f in findings):
            with pytest.warns(UserWarning, match=f"{Path(case).name}.json"):
                data.records("train")
        else:
            assert data.records("train")


MENDED = [
    name for name, codes in EXPECTED.items()
    if all(KINDS[code].fixable or KINDS[code].level != "fatal" for code in codes)
    and name not in ("coco/size_mismatch", "coco/duplicate_image_ids", "coco/nan_coordinates",
                     "via/unequal_points")
]  # fmt: skip


@pytest.mark.parametrize("case", MENDED)
def test_clean_copies_are_clean(tmp_path: Path, case: str) -> None:
    data = defect(case)
    before, usable, looks = checked(data)
    fix(data, looks, tmp_path / "copy")
    name = Path(case).name
    after, kept, _ = checked(single(tmp_path / f"copy/{name}.json", None))
    assert [f for f in after if f.level == "fatal"] == []
    assert len(kept) == len(usable)
    remaining = {"twin", "image-file-twice", "image-crowd-only", "category-empty", "mostly-dropped"}
    mended = {f.code for f in before if f.fixable} - remaining
    assert mended & {f.code for f in after} == set()
    rows = list(csv.DictReader((tmp_path / "copy/changes.csv").open()))
    for finding in before:
        if KINDS[finding.code].drops:
            told = {row["id"] for row in rows if row["code"] == finding.code}
            assert {str(i) for i in finding.ids} <= told


@pytest.mark.parametrize("case", ["truncated_json", "list_not_dict", "nan_coordinates"])
def test_what_cannot_be_mended_is_refused(tmp_path: Path, case: str) -> None:
    data = defect(f"coco/{case}")
    _, _, looks = checked(data)
    with pytest.raises(UserError, match="cannot be mended"):
        fix(data, looks, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def broken_set(folder: Path) -> Coco:
    """Two splits with many faults, of which something is left."""
    what = content()
    block = what["annotations"][0]
    what["annotations"] += [
        {**block, "id": 12},  # twice
        {**block, "id": 13, "category_id": 77},
        {**block, "id": 14, "segmentation": [[1, 1, 5, 5]]},
        {**block, "id": 15, "image_id": 5},
        {
            **block,
            "id": 16,
            "segmentation": [[-9, 8, 80, 8, 80, 30, -9, 30]],
            "attributes": {"a": 1},
        },
    ]
    what["images"] += [{"id": 5, "file_name": "gone.png", "height": 8, "width": 8, "license": 2}]
    what["licenses"] = [{"id": 2}]
    return write(folder, train=what)


def test_a_data_set_is_mended_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from segsweep.data.loader import TrainLoader

    broken_set(tmp_path / "set")
    words = ["data=coco", f"data.root={tmp_path / 'set'}", "--quiet"]
    out = ["--out", str(tmp_path / "report")]
    assert main([*words, *out, "--fix", str(tmp_path / "copy")]) == 1
    assert "changes" in capsys.readouterr().out
    report = json.loads((tmp_path / "report/report.json").read_text())
    codes = {finding["code"] for finding in report["findings"]}
    assert codes >= {"annotation-id-twice", "category-unknown", "short-polygon", "picture-missing",
                     "sticks-out", "leak"}  # fmt: skip
    copied = Coco(name="coco", root=str(tmp_path / "copy"), size=[32, 32])
    assert {a.id for record in copied.records("train") for a in record.annotations} == {1, 2, 3, 4}
    text = json.loads((tmp_path / "copy/train.json").read_text())
    assert text["licenses"] == [{"id": 2}]
    (cut,) = [a for a in text["annotations"] if a.get("attributes") == {"a": 1}]
    assert cut["bbox"] == [0, 8, 64, 22]
    assert [c["id"] for c in text["categories"]] == [4, 9]
    assert len(next(TrainLoader(copied, 2, 0).batches(0)).image_ids) == 2
    assert main(["data=coco", f"data.root={tmp_path / 'copy'}", "--quiet", *out]) == 0
    assert main([*words[:1], f"data.root={tmp_path / 'copy'}", "--quiet", "--strict", *out]) == 1
    with pytest.raises(UserError, match="not empty"):
        main([*words, *out, "--fix", str(tmp_path / "copy")])


coordinate = st.integers(-40, 100)


@settings(max_examples=100, deadline=None)
@given(st.lists(coordinate, min_size=6, max_size=12).filter(lambda v: len(v) % 2 == 0))
def test_cutting_at_the_frame_keeps_the_mask(ring: list[int]) -> None:
    cut = clipped([float(v) for v in ring], WIDTH, HEIGHT)
    whole = masks.to_mask([ring], (HEIGHT, WIDTH))
    after = np.zeros_like(whole)
    if len(cut) >= 6:
        after = masks.to_mask([cut], (HEIGHT, WIDTH))
        xs, ys = cut[0::2], cut[1::2]
        assert min(*xs, *ys) >= 0
        assert max(xs) <= WIDTH
        assert max(ys) <= HEIGHT
    outline = Image.new("1", (WIDTH, HEIGHT))
    corners = list(zip(ring[0::2], ring[1::2], strict=True))
    ImageDraw.Draw(outline).line([*corners, corners[0]], fill=1, width=5)
    differing = (whole ^ after) & ~np.asarray(outline)
    assert not differing.any()  # only crossings are rounded to other pixels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.data())
def test_near_hashes_are_all_found(values: list[int], data: st.DataObject) -> None:
    for value in values[:5]:
        flips = data.draw(st.sets(st.integers(0, 63), max_size=6))
        values = [*values, value ^ sum(1 << bit for bit in flips)]
    expected = [
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= 4
    ]
    assert close_pairs(np.array(values, np.uint64), 4) == expected


def test_copies_across_splits_are_found(tmp_path: Path) -> None:
    real_set = real("coco_tiny")
    _, second, _ = records = real_set.records("train")[:3]
    paths = [real_set.picture(record) for record in records]
    (tmp_path / "images").mkdir()
    shutil.copy(paths[0], tmp_path / "images/a0.jpg")
    shutil.copy(paths[0], tmp_path / "images/b0.jpg")
    shutil.copy(paths[1], tmp_path / "images/a1.jpg")
    smaller = Image.open(paths[1]).resize((second.width * 9 // 10, second.height * 9 // 10))
    smaller.save(tmp_path / "images/b1.jpg", quality=70)
    shutil.copy(paths[2], tmp_path / "images/sea_jpg.rf.fedcba9876543210.jpg")
    Image.new("RGB", (90, 80), "white").save(tmp_path / "images/sea_jpg.rf.0123456789abcdef.jpg")
    splits = {
        "train": ("a0.jpg", "a1.jpg", "sea_jpg.rf.fedcba9876543210.jpg"),
        "val": ("b0.jpg", "b1.jpg", "sea_jpg.rf.0123456789abcdef.jpg"),
    }
    for split, names in splits.items():
        what: dict[str, Any] = {"images": [], "annotations": []}
        what["categories"] = [{"id": 1, "name": "a"}]
        for number, name in enumerate(names, start=1):
            width, height = Image.open(tmp_path / "images" / name).size
            size = {"width": width, "height": height}
            what["images"].append({"id": number, "file_name": name, **size})
            block = {"category_id": 1, "segmentation": [[5, 5, 60, 5, 60, 60, 5, 60]]}
            what["annotations"].append({"id": number, "image_id": number, **block})
        (tmp_path / f"{split}.json").write_text(json.dumps(what))
    found = by_code(checked(Coco(name="coco", root=str(tmp_path)))[0])
    assert found["leak"] == ["b0.jpg"]
    assert found["leak-similar"] == ["b1.jpg"]
    assert found["leak-crop"] == ["sea_jpg.rf.0123456789abcdef.jpg"]
    assert found["picture-blank"] == ["sea_jpg.rf.0123456789abcdef.jpg"]


def test_any_data_set_can_be_checked(tmp_path: Path) -> None:
    words = ["data=digits", "data.train=6", "data.val=3", "--quiet", "--out", str(tmp_path)]
    assert main(words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: part["images"] for name, part in report["parts"].items()} == {
        "train": 6,
        "val": 3,
    }
    with pytest.raises(UserError, match="no_such"):
        main(["no_such.json"])
    with pytest.raises(UserError, match="data"):
        main(["data=nothing"])


@dataclass
class Painted(DataSet):
    """Label maps of two classes; the second one has a value that is no class."""

    task: ClassVar[str] = "semantic"

    def classes(self) -> list[str]:
        return ["left", "right"]

    def records(self, split: str) -> list[Record]:
        return [Record(n, f"{split}{n}", 8, 12, [], labels=f"map{n}") for n in (1, 2)]

    def image(self, record: Record) -> np.ndarray:
        seed = [record.image_id, len(record.file)]
        return np.random.default_rng(seed).integers(0, 255, (8, 12, 3), np.uint8)

    def label_map(self, record: Record) -> np.ndarray:
        labels = np.full((8, 12), BACKGROUND, np.uint8)
        labels[:, :3], labels[:, 9:], labels[0, :] = 0, 1, IGNORE
        labels[4, 4] = 7 if record.image_id == 2 else BACKGROUND
        return labels


def test_label_maps_are_counted_and_their_faults_found() -> None:
    data = Painted(name="painted")
    findings, _, looks = checked(data)
    assert by_code(findings) == {"labels-broken": ["map2"]}
    same = joined(part for part, _ in looks)
    report = described(data, looks, same)
    amounts = {row["name"]: row["pixels"] for row in report["parts"]["train"]["classes"]}
    assert amounts == {"left": 42, "right": 42, "(background)": 83, "(ignored)": 24}
    assert "painted" in render(report | {"command": "", "seconds": 0}, same, looks, [])
    with pytest.raises(UserError, match="label maps"):
        fix(data, looks, Path("nowhere"))


@pytest.mark.parametrize("name", ["rice_leaf", "coco_tiny"])
def test_real_sets_have_no_fatal_findings_and_no_warnings(name: str) -> None:
    findings, _, _ = checked(real(name))
    assert {f.level for f in findings} <= {"note"}


def test_the_documented_table_is_that_of_the_code() -> None:
    page = (Path(__file__).parents[1] / "docs/check_data.md").read_text(encoding="utf-8")
    for code, kind in KINDS.items():
        assert f"| `{code}` | {kind.level} |" in page, code


def test_checking_needs_no_torch_and_starting_not_even_numpy(tmp_path: Path) -> None:
    program = """if True:
        import sys
        import segsweep.verbs.check_data as check
        assert not {"numpy", "PIL", "hydra", "rich"} & set(sys.modules)
        assert check.main(sys.argv[1:]) == 0
        assert "torch" not in sys.modules
    """
    words = ["data=digits", "data.train=1", "data.val=1", "--quiet", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)

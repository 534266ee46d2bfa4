"""Annotation files as people report them: read as they are meant, or refused by a true sentence.

The pictures are those of `test_reported_cases`.
"""

from __future__ import annotations

import gzip
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, Annotation
from segsweep.data.formats import masks
from segsweep.data.sets.coco import Coco
from tests.layouts import source
from tests.small_coco import real_folder
from tests.test_reported_cases import case, changed, fixed, looked_at, precision

READ: dict[str, tuple[str, str]] = {  # case -> what is said of it: code, level
    "annid_uint64": ("annotation-id-text", "note"),
    "cat_numeric_name": ("", ""),
    "dot_slash": ("", ""),
    "gz": ("", ""),
    "hole_ring": ("hole-filled", "warning"),
    "isaid_nosize": ("image-size-missing", "note"),
    "ls_images_prefix": ("", ""),
    "ls_percent": ("picture-name", "warning"),
    "pairs": ("polygon-nested", "note"),
    "rle_floatcounts": ("rle-numbers", "note"),
    "rle_strsize": ("rle-numbers", "note"),
    "samename_slash": ("image-file-twice", "warning"),
    "upper_ext": ("picture-name", "warning"),
    "url_names": ("picture-name", "warning"),
}
NAMES = {"cat_numeric_name": ["1", "2"]}
SHARE = {"hole_ring": 0.7, "rle_floatcounts": 0.7, "rle_strsize": 0.7, "samename_slash": 0.8}
"""Of the mask pixels, those of the colour of their class: holes are filled, RLE a pixel wider."""


def reported(name: str) -> Coco:
    """A reported set; its files are named where they have no usual name."""
    packed = {split: f"{split}.json.gz" for split in SPLITS} if name == "gz" else {}
    return case(name, **packed)


@pytest.mark.filterwarnings("ignore:.*picture is taken", "ignore:.*hole", "ignore:.*several ids")
@pytest.mark.parametrize("name", READ)
def test_what_is_clear_is_read(name: str, tmp_path: Path) -> None:
    data, (code, level) = reported(name), READ[name]
    assert data.classes() == NAMES.get(name, ["bolt", "nut"])
    if name not in NAMES:
        assert min(precision(data, split) for split in SPLITS) > SHARE.get(name, 0.98)
    assert sum(len(r.annotations) for split in SPLITS for r in data.records(split)) >= 12
    findings, _ = looked_at(reported(name))
    assert {f.code: f.level for f in findings.values() if f.code != "area-disagrees"} == (
        {code: level} if code else {}
    )
    if name == "annid_uint64":
        assert "2^53 or more (4): 17293822569102704649" in findings[code].what
    copy, _ = fixed(reported(name), tmp_path / "copy")
    kept = {"hole-filled", "image-file-twice"} & {code}
    assert looked_at(copy)[0].keys() - {"area-disagrees"} == kept
    for split in SPLITS:
        before = [a for r in data.records(split) for a in r.annotations]
        assert_same(before, [a for r in copy.records(split) for a in r.annotations])


def assert_same(before: list[Annotation], after: list[Annotation]) -> None:
    """The same masks of the same classes; boxes and areas are those of the masks, or as told."""
    for a, b in zip(before, after, strict=True):
        assert (a.category, a.iscrowd, a.bbox) == (b.category, b.iscrowd, b.bbox)
        assert masks.listed(a.segmentation) == masks.listed(b.segmentation)


REFUSED = {  # case -> what the message holds, and whether a copy helps
    "id_uint64": (r"whole number below 2\^53.*64 bits.*17293822569102704647", True),
    "normalised": "from 0 to 1: they are parts of the picture",
    "rle_rowmajor": "RLE runs by rows",
    "xy_swapped": "polygons run y, x",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    words, mended = REFUSED[name] if name == "id_uint64" else (REFUSED[name], False)
    with pytest.raises(UserError, match=words) as error:
        case(name).records("train")
    assert ("--fix" in str(error.value)) == mended
    findings, _ = looked_at(case(name))
    assert not {"box-disagrees", "outside", "annotation-orphan"} & findings.keys()
    if mended:
        copy, rows = fixed(case(name), tmp_path / "copy")
        assert ("train", "image-id-text", "17293822569102704647", "is now 1") in rows
        assert min(precision(copy, split) for split in SPLITS) == 1
    else:
        with pytest.raises(UserError, match="cannot be mended"):
            fixed(case(name), tmp_path / "copy")


def entries(key: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    """A change of all entries of a list."""

    def apply(content: dict[str, Any]) -> None:
        for entry in content[key]:
            change(entry)

    return apply


def scaled(entry: dict[str, Any]) -> None:
    """Coordinates in percent of 200 x 160 pixels."""
    entry["segmentation"] = [[v / 0.96 for v in ring] for ring in entry["segmentation"]]


BROTHERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "deeper": (entries("annotations", lambda a: a.update(segmentation=[a["segmentation"]])),
               "polygon-nested", "note"),
    "corners": (entries("annotations", lambda a: a.update(
        bbox=[*a["bbox"][:2], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]])),
               "box-disagrees", "warning"),
    "other boxes": (entries("annotations", lambda a: a.update(bbox=[0, 0, 90 - a["id"], 60])),
               "masks-suspect", "warning"),
    "no name": (entries("categories", lambda c: c.update(name=["", None][c["id"] - 1])),
               "category-unnamed", "warning"),
    "text of sizes": (entries("images", lambda i: i.pop("width")), "image-size-missing", "note"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROTHERS)
def test_brothers_of_what_was_reported(name: str, tmp_path: Path) -> None:
    change, code, level = BROTHERS[name]
    data = changed("isaid_swapped", tmp_path, "train.json", change)
    findings, _ = looked_at(Coco(name="coco", root=data.root, train=data.train, val=data.train))
    assert findings[code].level == level
    extra = {code, "leak", "box-disagrees"} if code == "masks-suspect" else {code, "leak"}
    assert findings.keys() == extra


@pytest.mark.filterwarnings("ignore:.*matched by name")
def test_percent_is_suspected_in_large_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    source_set = case("isaid_swapped")
    for record in source_set.records("train"):
        large = Image.open(source_set.picture(record)).resize((200, 160))
        large.save(tmp_path / "images" / record.file)

    def percent(content: dict[str, Any]) -> None:
        entries("images", lambda i: i.update(width=200, height=160))(content)
        entries("annotations", scaled)(content)

    data = changed("isaid_swapped", tmp_path, "train.json", percent)
    data = Coco(name="coco", root=str(tmp_path), val=data.train)
    assert looked_at(data)[0]["coordinates-percent"].level == "warning"


def test_a_copy_keeps_boxes_that_may_be_right(tmp_path: Path) -> None:
    change, *_ = BROTHERS["other boxes"]
    data = changed("isaid_swapped", tmp_path, "train.json", change)
    told = [a["bbox"] for a in json.loads(Path(str(data.train)).read_text())["annotations"]]
    with pytest.warns(UserWarning, match="a copy keeps the boxes"):
        fixed(data, tmp_path / "copy")[0].records("train")
    content = json.loads((tmp_path / "copy/train.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == told


def test_names_of_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    shutil.copytree(real_folder("reported_cases") / "dot_slash", tmp_path, dirs_exist_ok=True)
    name = unicodedata.normalize("NFD", "größe.png")
    (tmp_path / "images/p01.png").rename(tmp_path / "images" / name)
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"][0]["file_name"] = unicodedata.normalize("NFC", name)
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = Coco(name="coco", root=str(tmp_path))
    assert data.records("train")[0].file == name
    assert precision(data, "train") == 1


@pytest.mark.parametrize("form", ["plain", "packed"])
def test_a_broken_file_is_said_to_be_broken(form: str, tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps({"images": []}).encode())
    path = tmp_path / "train.json"
    path.write_bytes(packed[:-9] if form == "packed" else b"\x1f\x8bno")
    with pytest.raises(UserError, match=r"train\.json: cannot be read"):
        case("dot_slash", train=str(path)).records("train")


def test_where_all_pictures_are_missing_no_copy_is_advised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"4 of 4 images.*data\.images") as error:
        case("dot_slash", images=str(tmp_path)).records("train")
    assert "--fix" not in str(error.value)


@pytest.mark.parametrize("name", ["sem_header_case", "sem_semicolon"])
def test_heads_of_lists_in_other_forms(name: str, tmp_path: Path) -> None:
    data = source("semantic", real_folder("reported_cases") / name, tmp_path)
    assert data.classes() == ["background", "bolt", "nut"]
    assert [len(data.records(split)) for split in SPLITS] == [3, 2]
    assert [r.file for r in data.records("train")] == ["i/p1.png", "i/p2.png", "i/p3.png"]


def test_a_list_without_the_columns_is_told_which_it_has(tmp_path: Path) -> None:
    shutil.copytree(real_folder("reported_cases/sem_semicolon"), tmp_path / "set")
    (tmp_path / "set/train.csv").write_text("picture;mask\ni/p1.png;m/p1.png\n")
    with pytest.raises(UserError, match="it names picture, mask, and 1 lines follow"):
        source("semantic", tmp_path / "set", tmp_path).records("train")


def test_masks_of_different_palettes_are_told(tmp_path: Path) -> None:
    shutil.copytree(real_folder("reported_cases/sem_semicolon"), tmp_path / "set")
    for number, path in enumerate(sorted((tmp_path / "set/m").iterdir())):
        mask = Image.fromarray(np.asarray(Image.open(path)))
        colours = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
        last = [*colours[:1], *colours[:0:-1]]  # red and blue have changed places
        mask.putpalette([v for colour in (last if number == 4 else colours) for v in colour])
        mask.save(path)
    data = source("semantic", tmp_path / "set", tmp_path / "cache")
    with pytest.warns(UserWarning, match="1 is #ff0000 in i/p1.png and #0000ff in i/p5.png"):
        data.records("val")
    assert looked_at(data)[0]["labels-palettes"].level == "warning"
    (tmp_path / "set/val.csv").write_text("image;label\ni/p4.png;m/p4.png\n")
    same = source("semantic", tmp_path / "set", tmp_path / "cache")
    assert "labels-palettes" not in looked_at(same)[0]


def told_and_made(folder: Path, copy: Path, rows: list[Any]) -> tuple[set[Any], set[Any]]:
    """Changes of values as (list, place, key): those that rows tell, and those that were made."""
    told, made = set(), set()
    for split in SPLITS:
        packed = folder / f"{split}.json.gz"
        raw = gzip.decompress(packed.read_bytes()) if packed.is_file() else (
            (folder / f"{split}.json").read_bytes()
        )  # fmt: skip
        before, after = json.loads(raw), json.loads((copy / f"{split}.json").read_text())
        for key in ("images", "annotations"):
            for old, new in zip(before[key], after[key], strict=True):
                names = {name for name in new if old.get(name) != new[name]}
                made |= {(split, str(old["id"]), name) for name in names}
    for split, code, identity, change in rows:
        if code in ("image-id-text", "annotation-id-text"):
            told.add((split, identity, "id"))
        elif code == "mask-form":
            told.add((split, identity, "segmentation"))
        elif not code.startswith(("category-", "picture-")) or "category_id" in change:
            told.add((split, identity, change.split()[0]))
    return told, made


@pytest.mark.parametrize("name", ["isaid_swapped", "id_uint64", "exif_mixed", *READ])
def test_a_copy_tells_every_change_and_no_other(name: str, tmp_path: Path) -> None:
    _, rows = fixed(reported(name), tmp_path)
    told, made = told_and_made(real_folder("reported_cases") / name, tmp_path, rows)
    assert told == made


def test_a_copy_holds_only_what_json_knows(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0] |= {"score": float("nan"), "attributes": [float("inf"), 1]}
        content["info"] = {"version": float("inf")}

    copy, rows = fixed(changed("isaid_swapped", tmp_path, "train.json", spoil), tmp_path / "copy")
    content = json.loads((tmp_path / "copy/train.json").read_text(), parse_constant=pytest.fail)
    assert content["annotations"][0]["attributes"] == [None, 1]
    assert [row[3].split()[0] for row in rows if row[1] == "not-finite"] == ["score", "attributes"]
    assert precision(copy, "train") == 1

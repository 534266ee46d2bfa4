"""Crops, tiles and copies of one photograph across splits: all that are there, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from segsweep.check.crops import certain
from segsweep.check.page import some_of_each
from segsweep.check.report import look_at
from segsweep.data.findings import Finding
from segsweep.data.sets.coco import Coco
from tests.small_coco import real

Splits = Mapping[str, Mapping[str, Image.Image]]


def written(folder: Path, splits: Splits) -> Coco:
    """A set of these pictures, JPEGs but for the suffix of their names, one object on each."""
    for split, pictures in splits.items():
        content: dict[str, list] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 1, "name": "a"}]
        for number, (name, picture) in enumerate(pictures.items(), start=1):
            (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            picture.convert("RGB").save(folder / "images" / name, quality=85)
            size = {"width": picture.width, "height": picture.height}
            content["images"].append({"id": number, "file_name": name, **size})
            block = {"category_id": 1, "segmentation": [[5, 5, 60, 5, 60, 60, 5, 60]]}
            content["annotations"].append({"id": number, "image_id": number, **block})
        (folder / f"{split}.json").write_text(json.dumps(content))
    return Coco(name="coco", root=str(folder))


def found(data: Coco) -> tuple[dict[str, Finding], dict[str, str]]:
    """Findings of leaks by code; pairs of files, the later one first."""
    looks, pairs = look_at(data, 1, quiet=True)
    findings = [f for part, _ in looks for f in part.findings() if f.code.startswith("leak")]
    crops = {b.record.file: a.record.file for code, a, b in pairs if code == "leak-crop"}
    return {f.code: f for f in findings}, crops


def photographs(name: str, count: int) -> list[Image.Image]:
    """Real photographs of nothing common."""
    data = real(name)
    return [Image.open(data.picture(record)) for record in data.records("train")[:count]]


def halves(picture: Image.Image, common: float) -> tuple[Image.Image, Image.Image]:
    """The left and the right part, which have a part of their width in common."""
    width, height = picture.size
    part = round(width / (2 - common))
    return picture.crop((0, 0, part, height)), picture.crop((width - part, 0, width, height))


def test_overlapping_crops_are_found_by_numbers_and_pixels(tmp_path: Path) -> None:
    crops = [halves(picture, 0.2) for picture in photographs("coco_tiny", 12)]
    names = "abcdefghijkl"
    splits = {
        split: {f"{name}_{k}.jpg": both[k] for name, both in zip(names, crops, strict=True)}
        for k, split in enumerate(("train", "val"))
    }
    findings, pairs = found(written(tmp_path, splits))
    assert findings.keys() == {"leak-crop"}
    assert {b: a for b, a in pairs.items() if b[0] != a[0]} == {}
    assert len(pairs) >= 10
    finding = findings["leak-crop"]
    assert sorted(finding.ids) == sorted(pairs)
    assert f"{len(pairs)} of 12 pictures of val: " in finding.what
    assert "a_1.jpg overlaps a_0.jpg of train" in finding.what
    assert "data.split" in finding.cure


def test_numbered_names_of_independent_photographs_are_no_leak(tmp_path: Path) -> None:
    for number, name in enumerate(("coco_tiny", "rice_leaf")):
        pictures = photographs(name, 24)
        splits = {
            split: {
                f"{kind}_{k + start}.jpg": picture
                for place, picture in enumerate(pictures[start : start + 12])
                for kind, k in [("abcdef"[place % 6], place)]
            }
            for split, start in (("train", 0), ("val", 12))
        }
        assert found(written(tmp_path / str(number), splits)) == ({}, {})


def test_tiles_without_overlap_are_found_by_their_edges_whatever_their_names(
    tmp_path: Path,
) -> None:
    tiles = [halves(picture, 0) for picture in photographs("rice_leaf", 12)]
    names = [f"{17 * number % 97:x}" for number in range(1, 13)]
    splits = {
        "train": {f"{name}.jpg": both[0] for name, both in zip(names, tiles, strict=True)},
        "val": {f"0{name}.jpg": both[1] for name, both in zip(names, tiles, strict=True)},
    }
    findings, pairs = found(written(tmp_path, splits))
    assert {b: a for b, a in pairs.items() if b != f"0{a}"} == {}
    assert len(pairs) >= 6
    assert "continues" in findings["leak-crop"].what


def test_tiles_of_one_slide_are_found_in_a_public_set() -> None:
    """Names tell nothing there; laid side by side, each of these pairs is seen to be one."""
    data = real("nuclei")
    known = {"1631352d": "353ab00e", "d827a7d8": "a9d884ba", "e4fc936b": "c35e6e3e"}
    present = {record.file[:8] for split in ("train", "val") for record in data.records(split)}
    expected = {b: a for b, a in known.items() if {a, b} <= present}
    findings, pairs = found(data)
    assert {b[:8]: a[:8] for b, a in pairs.items()} == expected
    assert f"{len(expected)} of {len(data.records('val'))} pictures" in findings["leak-crop"].what


def test_names_that_say_so_need_no_pixels(tmp_path: Path) -> None:
    """Copies that were turned, or of another scale, have no pixels in common."""
    blank = Image.new("RGB", (90, 80), "white")
    splits = {
        "train": {"train/sea_jpg.rf.fedcba9876543210.jpg": blank, "train/b_scaled_0.jpg": blank},
        "val": {
            "valid/sea_jpg.rf.0123456789abcdef.jpg": blank.resize((64, 64)),
            "valid/b_scaled_1.jpg": blank.resize((70, 90)),
            "valid/c_scaled_1.jpg": blank.resize((80, 90)),
            "valid/b_1.jpg": blank.resize((66, 90)),
        },
    }
    findings, pairs = found(written(tmp_path, splits))
    assert pairs == {
        "valid/sea_jpg.rf.0123456789abcdef.jpg": "train/sea_jpg.rf.fedcba9876543210.jpg",
        "valid/b_scaled_1.jpg": "train/b_scaled_0.jpg",
    }
    assert "2 of 4 pictures of val" in findings["leak-crop"].what


def test_names_of_many_pieces_may_be_those_of_a_class() -> None:
    names = [f"rice_crop_{number}.jpg" for number in range(12)]
    assert certain(names) == {}
    assert certain(names[:4]) == dict.fromkeys(names[:4], "rice")
    copies = [f"{name[:-4]}_jpg.rf.{number:032x}.jpg" for name in names for number in (0, 1)]
    assert {copy: certain(copies)[copy] for copy in copies[:2]} == dict.fromkeys(
        copies[:2], "rice_crop_0"
    )


@pytest.mark.parametrize("count", [3, 40])
def test_the_page_shows_some_pairs_of_each_code(count: int) -> None:
    pairs = [*[("leak", 0, n) for n in range(count)], *[("leak-crop", 1, n) for n in range(count)]]
    shown = some_of_each(pairs)  # pyright: ignore[reportArgumentType]
    assert len(shown) == min(12, 2 * count)
    assert [code for code, *_ in shown].count("leak") == len(shown) // 2

"""Sets in their publishers' layouts: every one converts, once, to what its files hold."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, IGNORE, SPLITS, Record
from segsweep.data.formats import masks
from segsweep.data.geometry import evaluation_geometry
from segsweep.data.source import Source
from segsweep.data.transforms import sample
from segsweep.run.record import data_facts
from tests.layouts import BLOCK, HEIGHT, WIDTH, kind, make, ndd20, picture, source
from tests.small_coco import real_folder
from tests.words import files

SOURCES = [w for w in files("data") if issubclass(kind(w), Source) and kind(w).facts.images]


pytestmark = pytest.mark.filterwarnings("ignore:.*the box is not that of the mask")


def pixels(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A mask as the official tools read it."""
    return oracle.decode(oracle.merge(oracle.frPyObjects(segmentation, *size))).astype(bool)


@pytest.mark.parametrize("name", SOURCES)
def test_every_set_converts_once_and_keeps_its_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if division := getattr(kind(name), "division", None):  # which asks for more than fakes have
        monkeypatch.setattr(kind(name), "division", replace(division, val=2))
    root, cache = make(name, tmp_path / "a"), tmp_path / "cache"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # faults of the real sets, told and left out
        data = source(name, root, cache)
        facts = data_facts(data)
        check_facts(data)
        for split in SPLITS:
            assert [r.image_id for r in data.records(split)] == [
                *range(1, len(data.records(split)) + 1)
            ]
            for record in data.records(split):
                check(data, record)
        assert facts["split"]["train"] == len(data.records("train"))
        assert capfd.readouterr().err.count(f"converting {name}") == 1
        shutil.move(root, tmp_path / "b")
        moved = source(name, tmp_path / "b", cache)
        assert data_facts(moved) == facts
        assert [r for s in SPLITS for r in moved.records(s)] == [
            r for s in SPLITS for r in data.records(s)
        ]
    assert "converting" not in capfd.readouterr().err
    assert (moved.image(moved.records("val")[0]) == data_image(moved)).all()


def data_image(data: Source) -> np.ndarray:
    return data.image(data.records("val")[0])


def check_facts(data: Source) -> None:
    """A set says where it is from and how it is split, and has statistics for its pictures."""
    facts = data.facts
    assert facts.title
    assert facts.licence
    assert len(facts.obtain) > 20
    assert all(number > 0 for number in facts.images.values())
    split = data.split_facts()
    assert len(split["hash"]) == 12
    assert split["rule"]
    assert len(data.category_ids()) == len(data.classes()) == len(set(data.classes()))


def check(data: Source, record: Record) -> None:
    """A record can be read, and becomes what the network sees."""
    size = (record.height, record.width)
    assert data.image(record).shape == (*size, 3)
    if data.task == "semantic":
        labels = data.label_map(record)
        assert labels.shape == size
        assert {*np.unique(labels).tolist()} <= {*range(len(data.classes())), BACKGROUND, IGNORE}
        return
    assert not longest_missed(data, size)
    for annotation in record.annotations:
        mask = masks.to_mask(annotation.segmentation, size)
        x, y, width, height = annotation.bbox
        assert mask.any()
        assert annotation.area > 0
        assert min(x, y) >= -1
        assert x + width <= size[1] + 1
        assert y + height <= size[0] + 1
        assert 0 <= annotation.category < len(data.classes())
    seen = sample(data.image(record), record, evaluation_geometry(data, record))
    assert len(seen.masks) == sum(not a.iscrowd for a in record.annotations)


def longest_missed(data: Source, size: tuple[int, int]) -> bool:
    return bool(data.longest) and max(size) > data.longest


# the sets


def test_outlines_of_dolphins_become_what_the_reference_conversion_says(tmp_path: Path) -> None:
    root = real_folder("ndd20_like")
    expected = json.loads((root / "expected_coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in expected["images"]}
    data = source("ndd20", root, tmp_path, "train=12", "val=12")
    records = {r.file: r for split in SPLITS for r in data.records(split)}
    assert {*records} == {*names.values()}
    for image in expected["images"]:
        record = records[image["file_name"]]
        assert (record.height, record.width) == (image["height"], image["width"])
        wanted = [a for a in expected["annotations"] if a["image_id"] == image["id"]]
        for annotation, want in zip(record.annotations, wanted, strict=True):
            size = (record.height, record.width)
            mask = masks.to_mask(annotation.segmentation, size)
            assert (mask == pixels(want["segmentation"], size)).all()
            assert annotation.bbox == want["bbox"]
            assert annotation.area == want["area"]


def test_dolphins_keep_folders_apart_blocks_together_and_what_was_said_of_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = source("ndd20", ndd20(tmp_path / "a"), tmp_path / "cache")
    records = {split: data.records(split) for split in SPLITS}
    assert {split: len(r) for split, r in records.items()} == {"train": 20, "val": 5}
    blocks = [
        {(r.file.split("/")[0], int(Path(r.file).stem) // 25) for r in records[split]}
        for split in SPLITS
    ]
    assert not blocks[0] & blocks[1]
    for record in (r for split in SPLITS for r in records[split]):
        above = record.file.startswith("ABOVE")
        assert record.meta == {
            "water": "above" if above else "below",
            "species": "BND" if above else "unknown",
            "out_of_focus": "unknown" if above else "true",
        }
    everything = tmp_path / "all.tsv"
    keys = [f"{water}/{n}.jpg" for water in ("ABOVE", "BELOW") for n in range(30)]
    lines = [f"{'val' if 'ABOVE' in key else 'train'}\t{key}" for key in keys]
    everything.write_text("\n".join(lines))
    capfd.readouterr()
    source("ndd20", tmp_path / "a", tmp_path / "cache", f"split={everything}").records("val")
    said = capfd.readouterr().err
    assert "2 open outlines closed" in said
    assert "2 outlines left out" in said


def test_pictures_larger_than_longest_are_stored_smaller_with_their_masks(tmp_path: Path) -> None:
    root = ndd20(tmp_path / "a")
    picture(root / "ABOVE/3.jpg", 3, size=(400, 600))  # ten times the others
    entries = json.loads((root / "ABOVE_LABELS.json").read_text())
    (entry,) = (e for e in entries.values() if e["filename"] == "3.jpg")
    shape = entry["regions"][0]["shape_attributes"]
    for axis in ("all_points_x", "all_points_y"):
        shape[axis] = [10 * v for v in shape[axis]]
    (root / "ABOVE_LABELS.json").write_text(json.dumps(entries))
    split = tmp_path / "split.tsv"
    split.write_text("train\tABOVE/3.jpg\nval\tABOVE/4.jpg\n")
    data = source("ndd20", root, tmp_path / "c", f"split={split}", "longest=60")
    with pytest.warns(UserWarning, match="belong together"):
        (record,) = data.records("train")
    assert (record.height, record.width) == (HEIGHT, WIDTH)
    (annotation,) = record.annotations
    assert (masks.to_mask(annotation.segmentation, (40, 60)) == pixels([BLOCK], (40, 60))).all()
    assert annotation.bbox == [10, 5, 20, 20]
    assert annotation.area == 400
    with Image.open(root / "ABOVE/3.jpg") as large:
        small = np.asarray(large.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)).astype(int)
    assert abs(data.image(record) - small).mean() < 2
    stored = [p.relative_to(data.converted).as_posix() for p in data.converted.rglob("*.jpg")]
    assert stored == ["images/ABOVE/3.jpg"]


def test_waste_keeps_its_split_and_its_classes_and_counts_empty_masks(tmp_path: Path) -> None:
    root = make("zerowaste", tmp_path / "a")
    data = source("zerowaste", root, tmp_path / "cache")
    with pytest.warns(UserWarning, match="3 annotations left out .*mask"):
        train = data.records("train")
    assert [r.file for r in train] == [f"train/data/00_frame_00000{n}.PNG" for n in range(3)]
    assert data.category_ids() == [1, 2, 3, 4]
    assert [a.category for a in train[0].annotations] == [0, 1, 2, 3]
    assert (data.image(train[0]) == np.asarray(Image.open(root / train[0].file))).all()
    path = root / "val/labels.json"
    path.write_text(path.read_text().replace("cardboard", "paper"))
    with pytest.raises(UserError, match=r"val/labels.json.*'paper'.*'cardboard'"):
        source("zerowaste", root, tmp_path / "cache").records("val")


def test_things_under_x_rays_overlap_and_keep_their_ids(tmp_path: Path) -> None:
    data = source("wixray", make("wixray", tmp_path / "a"), tmp_path / "cache")
    (record,) = data.records("val")
    found = [masks.to_mask(a.segmentation, (HEIGHT, WIDTH)) for a in record.annotations]
    assert [mask.sum() for mask in found] == [400] * 12
    assert (found[0] & found[1]).sum() == 19 * 19
    assert data.category_ids() == [3 * k + 2 for k in range(12)]
    assert [a.category for a in record.annotations] == [*range(12)]
    stored = json.loads((data.converted / "val.json").read_text())
    assert [a["category_id"] for a in stored["annotations"]] == data.category_ids()


# what a set is known by


def test_a_set_is_hashed_once_for_many_runs_and_again_when_it_changes(tmp_path: Path) -> None:
    root, cache = make("wixray", tmp_path / "a"), tmp_path / "cache"
    key = source("wixray", root, cache).fingerprint()
    path = root / "annotations/instances_val2017.json"
    before = path.stat()
    path.write_text(path.read_text().replace("[11, 6, ", "[12, 6, "))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert source("wixray", root, cache).fingerprint() == key  # nobody read it again
    os.utime(path)
    changed = source("wixray", root, cache).fingerprint()
    assert changed != key
    assert source("wixray", root, tmp_path / "other").fingerprint() == changed
    picture(root / "images/train2017/train_0.jpg", seed=9)
    assert source("wixray", root, cache).fingerprint() != changed


def test_an_archive_in_its_own_folder_is_the_same_set(tmp_path: Path) -> None:
    flat, cache = ndd20(tmp_path / "a"), tmp_path / "cache"
    first = source("ndd20", flat, cache)
    first.records("val")
    (tmp_path / "b").mkdir()
    shutil.move(flat, tmp_path / "b/NDD20")
    nested = source("ndd20", tmp_path / "b", cache)
    assert nested.fingerprint() == first.fingerprint()
    assert nested.split_facts() == first.split_facts()
    assert nested.image(nested.records("val")[0]).shape == (HEIGHT, WIDTH, 3)


def test_runs_differ_by_what_changes_pictures_only(tmp_path: Path) -> None:
    root = make("wixray", tmp_path / "a")
    words = ["data=wixray", f"data.root={root}", f"data.cache={tmp_path / 'cache'}"]
    known = fingerprint(compose(words))
    assert fingerprint(compose([*words, f"data.cache={tmp_path / 'other'}"])) == known
    assert fingerprint(compose([*words, "data.longest=30"])) != known

"""Cityscapes and ADE20K instances: the pixels of every object, from their publishers' layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, Record
from segsweep.data.formats import masks
from segsweep.data.sets.ade20k_instance import ADE20KInstance
from segsweep.data.sets.cityscapes import LABELS, VOID, Cityscapes
from segsweep.run.record import metric_facts
from segsweep.sweeps.sweeper import configs
from tests import layouts_city as layouts
from tests.small_coco import real_folder


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def city(root: Path, cache: str, **options: Any) -> Cityscapes:
    return Cityscapes(name="cityscapes", root=str(root), cache=cache, **options)


def ade(root: Path, cache: str) -> ADE20KInstance:
    return ADE20KInstance(name="ade20k_instance", root=str(root), cache=cache)


def pixels(record: Record) -> list[np.ndarray]:
    size = record.height, record.width
    return [masks.to_mask(a.segmentation, size) for a in record.annotations]


def test_objects_groups_and_void_of_a_street(tmp_path: Path, cache: str) -> None:
    data = city(layouts.cityscapes(tmp_path / "set"), cache)
    assert [(r.meta["city"], Path(r.file).parts[1]) for r in data.records("train")] == [
        ("aachen", "train"),
        ("bochum", "train"),
    ]
    (record,) = data.records("val")
    found = [(data.classes()[a.category], a.iscrowd) for a in record.annotations]
    assert found == [
        ("person", True), ("person", False), ("car", False), ("car", False), ("bicycle", False)
    ]  # fmt: skip
    numbers = layouts.street()
    for number, mask in zip((24, 24000, 26000, 26001, 33000), pixels(record), strict=True):
        np.testing.assert_array_equal(mask, numbers == number)
    assert [a.area for a in record.annotations] == [m.sum() for m in pixels(record)]
    assert record.void is not None
    void = masks.to_mask(record.void, (record.height, record.width))
    np.testing.assert_array_equal(void, numbers == layouts.STATIC)  # and not the single caravan
    assert data.image(record).shape == (*numbers.shape, 3)
    assert data.category_ids() == [24, 25, 26, 27, 28, 31, 32, 33]
    assert data.split_facts()["rule"] == "published"


def test_void_shrinks_with_the_pictures(tmp_path: Path, cache: str) -> None:
    (record,) = city(layouts.cityscapes(tmp_path / "set"), cache, longest=32).records("val")
    assert (record.height, record.width) == (24, 32)
    assert record.void is not None
    void = masks.to_mask(record.void, (24, 32))
    np.testing.assert_array_equal(void, np.arange(24)[:, None] >= np.full(32, 20))


def test_every_object_of_the_sample_has_its_pixels(cache: str) -> None:
    root = real_folder("cityscapes_like")
    manifest = json.loads((root / "manifest.json").read_text())
    data = city(root, cache)
    found = {
        split: {Path(r.file).name.removesuffix("_leftImg8bit.png"): r for r in data.records(split)}
        for split in SPLITS
    }
    assert sum(map(len, found.values())) == len(manifest)
    for entry in manifest:
        record = found[entry["split"]][entry["stem"]]
        path = layouts.numbers_file(root, entry["stem"], entry["split"])
        numbers = np.asarray(Image.open(path)).astype(int)
        told = {int(number): count for number, count in entry["instance_ids"].items()}
        of_ours = {n: c for n, c in told.items() if (n // 1000 or n) in LABELS}
        assert len(pixels(record)) == len(of_ours)
        for a, mask in zip(record.annotations, pixels(record), strict=True):
            (number,) = np.unique(numbers[mask])
            assert of_ours.pop(int(number)) == mask.sum() == a.area
            assert data.category_ids()[a.category] == (number // 1000 or number)
            assert a.iscrowd == (number < 1000)
        assert record.void is not None
        assert masks.area(masks.to_rle(record.void, numbers.shape)) == np.isin(numbers, VOID).sum()


def test_what_is_wrong_with_a_street_is_named(tmp_path: Path, cache: str) -> None:
    with pytest.raises(UserError, match=r"data\.root.*cityscapes-dataset\.com"):
        city(tmp_path / "nowhere", cache).records("val")
    root = layouts.cityscapes(tmp_path / "set")
    numbers = layouts.numbers_file(root, "lindau_000001_000019", "val")
    numbers.with_name(numbers.name.replace("instanceIds", "color")).replace(numbers)
    with pytest.raises(UserError, match=r"lindau_000001_000019_gtFine_instanceIds.*RGBA"):
        city(root, cache).records("val")
    numbers.unlink()
    other = numbers.with_name("lindau_000002_000019_gtFine_instanceIds.png")
    layouts.save(other, layouts.street())
    with pytest.raises(UserError, match=r"lindau_000001_000019_leftImg8bit\.png has no mask"):
        city(root, cache).records("val")


def test_objects_of_a_room(tmp_path: Path, cache: str) -> None:
    data = ade(layouts.ade20k_instance(tmp_path / "set"), cache)
    (record,) = data.records("val")
    assert [data.classes()[a.category] for a in record.annotations] == ["chair", "table", "flag"]
    for number, mask in zip(layouts.ROOM, pixels(record), strict=True):
        np.testing.assert_array_equal(mask, layouts.room()[..., 1] == number)


def test_every_object_of_the_other_sample_has_its_pixels(cache: str) -> None:
    root = real_folder("ade20k_like")
    manifest = json.loads((root / "manifest.json").read_text())
    data = ade(root, cache)
    table = json.loads((root / "ade_instance_categories.json").read_text())["instance100"]
    assert data.classes() == [entry["name"] for entry in table]
    assert data.category_ids() == [entry["id"] for entry in table]
    found = {Path(r.file).stem: (split, r) for split in SPLITS for r in data.records(split)}
    assert len(found) == len(manifest)
    for entry in manifest:
        split, record = found[entry["stem"]]
        assert entry["split"] == {"train": "training", "val": "validation"}[split]
        told = sorted(entry["instances"].items(), key=lambda item: int(item[0]))
        assert [
            (a.category + 1, data.classes()[a.category], a.area) for a in record.annotations
        ] == [(v["category"], v["name"], v["pixels"]) for _, v in told]
        assert [a.area for a in record.annotations] == [mask.sum() for mask in pixels(record)]


def test_a_label_map_or_a_strange_class_in_place_of_objects_is_named(
    tmp_path: Path, cache: str
) -> None:
    root = layouts.ade20k_instance(tmp_path / "set")
    path = root / "ADEChallengeData2016/annotations_instance/validation/ADE_val_00000001.png"
    for values, said in (
        (layouts.room()[..., 0], "scene parsing"),
        (np.full_like(layouts.room(), 101), "object 101 is of class 101"),
    ):
        layouts.save(path, values)
        with pytest.raises(UserError, match=f"ADE_val_00000001.png.*{said}"):
            ade(root, cache).records("val")


def test_a_set_chooses_its_metric_and_the_command_line_wins() -> None:
    for words, chosen in (
        (["data=cityscapes"], "Cityscapes"),
        (["data=cityscapes", "metrics=coco"], "COCO"),
        (["metrics=coco", "data=cityscapes"], "COCO"),
        (["data=ade20k_instance"], "COCO maxDets 255"),
        (["data=ade20k_instance", "metrics.max_dets=7"], "COCO maxDets 7"),
        (["data=digits"], "COCO"),
    ):
        assert compose(words).metrics.protocol() == chosen
    swept = configs(["-m", "data=digits,cityscapes", "seed=0,1"])
    protocols = [config.metrics.protocol() for _, config in swept]
    assert protocols == ["COCO", "COCO", "Cityscapes", "Cityscapes"]


def test_records_tell_the_protocol_of_each_value() -> None:
    metric = compose(["data=cityscapes"]).metrics
    told = metric_facts(metric, {"cityscapes_AP": 40.0, "cityscapes_AP50": None})
    assert {entry["protocol"] for entry in told.values()} == {"Cityscapes"}
    assert told.keys() == metric.names().keys()

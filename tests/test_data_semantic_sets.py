"""The semantic sets: label maps exact, parts apart, and none of the archives' traps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, IGNORE, SPLITS
from segsweep.data.sets.ade20k import ADE20K
from segsweep.data.sets.camo import CAMO
from segsweep.data.sets.cvc612 import CVC612, sequence
from segsweep.data.sets.isic2017 import ISIC2017
from segsweep.data.sets.kvasir import Kvasir
from segsweep.data.sets.leaf import Leaf
from segsweep.data.sets.road import Road
from segsweep.data.sets.sbu import SBU
from segsweep.data.sets.semantic import Semantic
from segsweep.data.sets.trans10k import Trans10K
from segsweep.data.source import Source
from tests import layouts_semantic as layouts
from tests.small_coco import real_folder

KINDS: dict[str, type[Source]] = {
    "kvasir": Kvasir,
    "cvc612": CVC612,
    "isic2017": ISIC2017,
    "camo": CAMO,
    "sbu": SBU,
    "leaf": Leaf,
    "road": Road,
    "trans10k": Trans10K,
    "ade20k": ADE20K,
    "semantic": Semantic,
}
PARTS = {  # of the fakes: train, val
    "kvasir": (4, 2),
    "cvc612": (13, 8),
    "isic2017": (2, 2),
    "camo": (3, 2),
    "sbu": (3, 3),
    "leaf": (6, 2),
    "road": (3, 3),
    "trans10k": (3, 2),
    "ade20k": (3, 2),
}


@pytest.fixture(autouse=True)
def small_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that ask for as few pictures as the fakes have."""
    for kind, val in ((Kvasir, 2), (CVC612, 8), (Leaf, 2)):
        monkeypatch.setattr(kind, "division", dataclasses.replace(kind.division, val=val))


def made(name: str, root: Path, **options: Any) -> Source:
    """Return a set that lies in a folder."""
    cache = str(options.pop("cache", root.parent / "cache"))
    return KINDS[name](name=name, root=str(root), cache=cache, **options)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.filterwarnings("ignore:.*without the other half")
def test_label_maps_are_exact_and_parts_apart(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    expected = layouts.LAYOUTS[name](root)
    data = made(name, root)
    assert data.task == "semantic"
    keys = {split: [item.key for item in data._chosen[split]] for split in SPLITS}
    assert tuple(map(len, keys.values())) == PARTS[name]
    assert not {*keys["train"]} & {*keys["val"]}
    for split in SPLITS:
        for key, record in zip(keys[split], data.records(split), strict=True):
            labels = data.label_map(record)
            assert labels.dtype == np.uint8
            assert np.array_equal(labels, expected[key]), key
            assert data.image(record).shape == (*labels.shape, 3)
    classes = len(data.classes())
    assert len({*data.classes()}) == len(data.category_ids()) == classes
    found = np.unique([data.label_map(r) for r in data.records("train")])
    assert {*found} <= {*range(classes), BACKGROUND if data.background else IGNORE}


@pytest.mark.parametrize("name", PARTS)
def test_metrics_and_facts_fit(name: str) -> None:
    config = compose([f"data={name}", "data.longest=512"])
    assert type(config.data) is KINDS[name]
    config.metrics.check(config.data, config.model)
    facts = config.data.facts
    assert all((facts.title, facts.licence, facts.citation, facts.obtain))
    assert {*SPLITS} <= {*facts.images}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_missing_is_named_with_how_to_get_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    data = made(name, tmp_path / "root")
    with pytest.raises(UserError, match="has no folder") as error:
        data.items()
    assert data.facts.obtain in str(error.value)


def test_frames_of_a_sequence_stay_together_in_every_form(tmp_path: Path) -> None:
    layouts.cvc612(tmp_path / "root")
    layouts.cvc612(tmp_path / "other", "png")
    data, other = made("cvc612", tmp_path / "root"), made("cvc612", tmp_path / "other")
    groups = {split: {item.group for item in data._chosen[split]} for split in SPLITS}
    assert not groups["train"] & groups["val"]
    assert data.split_facts()["hash"] == other.split_facts()["hash"]  # PNG and TIFF, one split
    assert [sequence(str(frame)) for frame in (25, 26, 200, 205, 206, 612)] == [
        f"sequence {number}" for number in (1, 2, 10, 10, 11, 29)
    ]
    for name in ("613", "0", "frame7"):
        with pytest.raises(UserError, match="frame number"):
            sequence(name)


def test_the_rule_is_that_of_the_whole_archive_wherever_it_lies(tmp_path: Path) -> None:
    layouts.kvasir(tmp_path / "root")
    inside = made("kvasir", tmp_path / "root" / "Kvasir-SEG")
    outside = made("kvasir", tmp_path / "root")
    assert inside.split_facts() == outside.split_facts()
    assert "sha256('kvasir/0/<group>')" in inside.split_facts()["rule"]


def test_augmented_copies_in_the_folder_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = layouts.leaf(tmp_path / "root")
    for path in (tmp_path / "root/aug_data/aug_data").rglob("*.*"):
        shutil.move(path, tmp_path / "root/data/data" / path.parent.name / path.name)
    facts = dataclasses.replace(Leaf.facts, images={"train": 6, "val": 2})
    monkeypatch.setattr(Leaf, "facts", facts)
    with pytest.warns(UserWarning, match=r"16 \(images/00000_0.jpg.*augmented copies"):
        parts = made("leaf", tmp_path / "root").items()
    assert {item.key for items in parts.values() for item in items} == {*expected}


@pytest.mark.parametrize(("name", "test"), [("kvasir", "test_Kvasir"), ("sbu", "test")])
def test_packed_archives_keep_their_lists(tmp_path: Path, name: str, test: str) -> None:
    root = tmp_path / "root"
    lists = {"train": [0, 1, 2], "val": [3], test: [4, 5], "test_CVC-ClinicDB": [6]}
    expected = layouts.packed(root, lists)
    data = made(name, root)
    keys = {split: [record.file for record in data.records(split)] for split in SPLITS}
    assert keys["val"] == ["images/4.JPG", "images/5.JPG"]  # what the study reports on
    assert len(keys["train"]) == 3
    assert data.split_facts()["rule"] == "lists of the packed archive"
    for record in data.records("val"):
        assert np.array_equal(data.label_map(record), expected[record.file])


def test_a_real_packed_set(tmp_path: Path) -> None:
    real, root = real_folder("rice_leaf"), tmp_path / "root"
    root.mkdir()
    for name in ("images", "masks"):
        (root / name).symlink_to(real / name)
    for name, count in (("train.csv", 21), ("val.csv", 9)):  # not all, to be quick
        lines = (real / name).read_text().splitlines()[:count]
        (root / name).write_text("\n".join(lines))
    data = made("leaf", root)
    assert [len(data.records(split)) for split in SPLITS] == [20, 8]
    assert {record.file[-4:] for record in data.records("train")} == {".jpg", ".JPG"}
    for record in data.records("val"):
        path = real / "masks" / f"{Path(record.file).stem}.png"
        assert np.array_equal(data.label_map(record) == 0, np.asarray(Image.open(path)) == 255)


def test_real_maps_of_ade20k(tmp_path: Path) -> None:
    real, root = real_folder("ade20k_like") / "real_sceneparsing_sample", tmp_path / "root"
    for part, number in (("training", 1), ("training", 2), ("validation", 3)):
        labels = real / "annotations" / f"ADE_val_{number:08}.png"
        image = root / "ADEChallengeData2016/images" / part / f"{number}.jpg"
        target = root / "ADEChallengeData2016/annotations" / part / f"{number}.png"
        for path in (image, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(labels, target)
        Image.new("RGB", Image.open(labels).size).save(image)  # its own may not be handed on
    data = made("ade20k", root)
    for split in SPLITS:
        for record in data.records(split):
            path = real / "annotations" / f"ADE_val_{Path(record.file).stem:>08}.png"
            values = np.asarray(Image.open(path)).astype(int)
            assert np.array_equal(data.label_map(record), np.where(values, values - 1, 255))


STREETS = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
]  # fmt: skip
VOID = len(STREETS)


def streets(root: Path) -> dict[str, np.ndarray]:
    """Lay out street scenes as a set of one's own; return the values of each image's mask."""
    real, values = real_folder("cityscapes_like"), {}
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for split in SPLITS:
        rows = ["image,label"]
        for image in sorted((real / "leftImg8bit" / split).glob("*/*.png")):
            stem = image.name.removesuffix("_leftImg8bit.png")
            mask = real / "gtFine" / split / image.parent.name / f"{stem}_gtFine_labelTrainIds.png"
            name = f"images/{stem}.png"
            (root / name).symlink_to(image)
            values[name] = np.asarray(Image.open(mask))
            values[name] = np.where(values[name] == 255, VOID, values[name]).astype(np.uint8)
            Image.fromarray(values[name]).save(root / "masks" / f"{stem}.png")
            rows.append(f"{name},masks/{stem}.png")
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return values


@pytest.mark.parametrize("by", ["classes.json", "command line"])
def test_your_own_semantic_data(tmp_path: Path, by: str) -> None:
    values, root = streets(tmp_path / "root"), tmp_path / "root"
    labels = {name: k for k, name in enumerate(STREETS)}
    words = ["data=semantic", f"data.root={root}", f"data.cache={tmp_path}"]
    if by == "command line":
        given = ",".join(f"{name}:{k}" for name, k in labels.items())
        words += [f"data.labels={{{given}}}", f"data.ignore_label=[{VOID}]"]
    else:
        content = {"classes": labels, "ignore_label": VOID}
        (root / "classes.json").write_text(json.dumps(content))
    data = compose(words).data
    assert data.classes() == STREETS
    assert not data.background
    assert [len(data.records(split)) for split in SPLITS] == [7, 7]
    for record in data.records("val"):
        own = values[record.file]
        assert {VOID} < {*np.unique(own)}
        assert np.array_equal(data.label_map(record), np.where(own == VOID, IGNORE, own))


FILES = {
    "of values": ('{"classes": {"b": 255}, "background_label": 0}', ["b"], True),
    "a plain list": ('["a", "b"]', ["a", "b"], False),
    "one value twice": ('{"classes": ["a"], "ignore_label": 0}', "must mean one thing", None),
    "too many": (json.dumps([*map(str, range(255))]), "json: 255 classes, but label maps", None),
    "one name twice": ('["a", "a"]', "names once", None),
    "no names": ('{"names": ["a"]}', "must be like", None),
    "words for values": ('{"classes": {"a": "1"}}', "whole numbers", None),
    "no json": ("[", "cannot be read as JSON", None),
}


@pytest.mark.parametrize("what", FILES)
def test_files_of_classes(tmp_path: Path, what: str) -> None:
    text, classes, background = FILES[what]
    layouts.packed(tmp_path, {"train": [0], "val": [1]})
    (tmp_path / "classes.json").write_text(text)
    data = made("semantic", tmp_path)
    if isinstance(classes, str):
        with pytest.raises(UserError, match=classes):
            data.classes()
    else:
        assert (data.classes(), data.background) == (classes, background)
        if background:
            assert np.array_equal(data.label_map(data.records("val")[0]), layouts.binary(1))


FAULTS = {
    "a picture without a mask": (lambda base: (base / "masks/cju1.jpg").unlink(), "has no mask"),
    "a mask without a picture": (lambda base: (base / "images/cju1.jpg").unlink(), "no picture"),
    "other size": (
        lambda base: Image.new("L", (8, 8)).save(base / "masks/cju1.jpg"),
        r"cju1.jpg: the mask has 8x8 pixels, its picture cju1.jpg 40x24",
    ),
    "a pointer": (
        lambda base: (base / "masks/cju1.jpg").write_text("version https://git-lfs.github.com"),
        "git lfs pull",
    ),
    "two suffixes": (
        lambda base: shutil.copy(base / "masks/cju1.jpg", base / "masks/cju1.png"),
        "two files of one name",
    ),
    "a dark mask": (
        lambda base: Image.fromarray(np.arange(960).reshape(24, 40).astype(np.uint8) % 90).save(
            base / "masks/cju1.jpg", quality=100
        ),
        "none above",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_faults_are_named(tmp_path: Path, what: str) -> None:
    layouts.kvasir(tmp_path / "root")
    spoil, message = FAULTS[what]
    spoil(tmp_path / "root" / "Kvasir-SEG")
    data = made("kvasir", tmp_path / "root")
    with pytest.raises(UserError, match=message) as error:
        data.records("train")
    assert "cju1" in str(error.value)


def test_pairs_without_a_mask_are_counted_where_the_authors_skip_them(tmp_path: Path) -> None:
    layouts.trans10k(tmp_path / "root")
    with pytest.warns(UserWarning, match=r"1 \(.*lonely.jpg has no mask\).*left out"):
        made("trans10k", tmp_path / "root").items()

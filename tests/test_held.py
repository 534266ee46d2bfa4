"""The best epoch is chosen on a list that was held out, and label maps at the input's size."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from segsweep.base.config import compose, fingerprint, identity
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.data.base import IGNORE
from segsweep.data.geometry import evaluation_geometry, nearest
from segsweep.data.loader import EvalLoader
from segsweep.metrics.ceiling import ceiling
from segsweep.metrics.label_maps import JudgedMap
from segsweep.model.found import SemanticMap
from segsweep.run.evaluate import judged
from segsweep.run.identity import Run
from segsweep.run.restore import restore
from segsweep.story import train
from tests import layouts_semantic as layouts

HELD = ["data.select=held", "data.size=[128,128]", "model=sam_tiny", "peft=decoder_only"]
SHORT = ["hparams.epochs=2", "hparams.batch_size=2", "peft.lr=0.01"]
SQUARES = ["data=digits_binary", "data.val=2", "data.train=2", "model=sam_tiny", "peft=frozen"]


@pytest.fixture
def moles(tmp_path: Path) -> list[str]:
    """The words of a set with three published parts, two pictures each."""
    layouts.isic2017(tmp_path / "moles")
    return ["data=isic2017", f"data.root={tmp_path / 'moles'}", f"data.cache={tmp_path / 'cache'}"]


def test_the_held_list_chooses_and_the_test_list_is_reported(
    moles: list[str], tmp_path: Path
) -> None:
    words = [*moles, *HELD, *SHORT, f"io.results={tmp_path / 'results'}"]
    run = Run(compose(words))
    run.once(train)
    record = json.loads((run.directory / "record.json").read_text())
    assert record["data"]["images"] == {"train": 2, "val": 2, "held": 2}
    assert record["data"]["split"]["held"] == 2
    key, model = run.config.metrics.key, restore(run.directory).model
    held, val = (judged(run.config, model, part).compute()[key] for part in ("held", "val"))
    assert held != val
    assert record["best"]["value"] == held
    assert record["metrics"][key]["value"] == val


def test_the_held_list_is_part_of_a_run_only_where_it_chooses(
    moles: list[str], tmp_path: Path
) -> None:
    by_val, by_held = compose(moles), compose([*moles, "data.select=held"])
    assert "select" not in identity(by_val.data)
    assert fingerprint(by_val) == fingerprint(compose([*moles, "data.select=val"]))
    parts = [{r.file for r in by_held.data.records(p)} for p in ("train", "val", "held")]
    assert len(set.union(*parts)) == 6
    assert by_val.data.split_facts().keys() == {"rule", "hash", "train", "val"}
    other = next((tmp_path / "moles").glob("ISIC-2017_Validation_Data/*[0-9].jpg"))
    before = fingerprint(by_val), fingerprint(by_held)
    mask = tmp_path / f"moles/ISIC-2017_Validation_Part1_GroundTruth/{other.stem}_segmentation.png"
    layouts.mask(mask, layouts.thing(2) * 255)
    after = fingerprint(compose(moles)), fingerprint(compose([*moles, "data.select=held"]))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_who_has_no_held_list_says_so(tmp_path: Path) -> None:
    maps = layouts.camo(tmp_path / "camo")
    words = ["data=camo", f"data.root={tmp_path / 'camo'}", f"data.cache={tmp_path / 'cache'}"]
    with pytest.raises(
        UserError, match=r"data\.select=held: .*camo has no third list .*data\.split"
    ):
        compose([*words, "data.select=held"]).data.records("val")
    train, val, *held = ((f"{part}\t{key}\n") for part, key in zip(
        ("train", "val", "held", "held", "held"), maps, strict=True))  # fmt: skip
    (tmp_path / "mine.tsv").write_text("".join([train, val, *held]))
    named = [*words, f"data.split={tmp_path / 'mine.tsv'}"]
    assert len(compose([*named, "data.select=held"]).data.records("held")) == 3
    assert len(compose(named).data.records("val")) == 1
    there_is_none = r"no key 'select' in 'data', which is data=digits; it belongs"
    with pytest.raises(UserError, match=there_is_none), explained():
        compose(["data.select=held"])


def test_a_folder_of_lists_may_have_one_more(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "held")):
        layouts.picture(tmp_path / f"{number}.png", number)
        layouts.mask(tmp_path / f"{number}-mask.png", layouts.thing(number))
        (tmp_path / f"{part}.csv").write_text(f"image,label\n{number}.png,{number}-mask.png\n")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["floor", "thing"]}))
    words = ["data=semantic", f"data.root={tmp_path}", f"data.cache={tmp_path / 'cache'}"]
    data = compose([*words, "data.select=held"]).data
    assert [record.file for record in data.records("held")] == ["2.png"]


def test_maps_are_compared_at_the_size_that_the_network_sees() -> None:
    words = [*SQUARES, "data.side=100"]
    whole, seen = (compose([*words, f"metrics.at={at}"]) for at in ("original", "input"))
    model = whole.model.build(whole.data.subject())
    counts = {}
    for config in (whole, seen):
        kept: list[JudgedMap] = []
        judged(config, model, "val", keep=lambda ids, maps, kept=kept: kept.extend(maps))
        counts[config.metrics.at.name] = [m.labels().shape for m in kept]
        assert all(m.pixels.sum() == m.labels().size for m in kept)
    assert counts == {"original": [(100, 100)] * 2, "input": [(128, 128)] * 2}


def test_what_training_sees_is_perfect_there_and_not_at_the_original_size() -> None:
    """The truth itself, as the network sees it, has every pixel right at the input's size only."""
    config = compose([*SQUARES, "data.side=150", "metrics.at=input"])
    data, metric = config.data, config.metrics
    batch = metric.framed(next(islice(EvalLoader(data, "val", 2), 1)))
    assert batch.original_sizes == batch.sizes == [(128, 128)] * 2
    maps = [t.label_map for t in batch.targets]
    found = [SemanticMap(m, (m < IGNORE).float(), final=True) for m in maps if m is not None]
    evaluator = metric.evaluator(data, "val")
    (first, _) = evaluator.update(batch, found)
    assert evaluator.compute()["IoU_image"] == 100
    record = data.records("val")[0]
    truth = nearest(data.label_map(record), evaluation_geometry(data, record))
    assert np.array_equal(first.labels(), truth)
    assert ceiling(config) is None
    limit = ceiling(compose([*SQUARES, "data.side=150"]))
    assert limit is not None
    assert limit.value < 100


def test_the_size_is_part_of_the_protocol_and_neutral() -> None:
    plain, at = compose(SQUARES), compose([*SQUARES, "metrics.at=input"])
    assert fingerprint(plain) == fingerprint(compose([*SQUARES, "metrics.at=original"]))
    assert fingerprint(plain) != fingerprint(at)
    assert "at" not in identity(plain.metrics)
    assert at.metrics.protocol() == "foreground overlap at the input's size"
    for words in ([*SQUARES, "metrics=saliency", "metrics.beta2=0.3"], ["data=digits_semantic"]):
        config = compose([*words, "metrics.at=input"])
        assert config.metrics.protocol().endswith(" at the input's size")
    there_is_none = r"no key 'at' in 'metrics', which is metrics=coco; it belongs"
    with pytest.raises(UserError, match=there_is_none), explained():
        compose(["metrics.at=input"])

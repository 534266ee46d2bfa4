"""Semantic tasks: label maps become targets, queries become label maps, and whole runs learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from segsweep.analysis.study import evaluated
from segsweep.base.config import compose
from segsweep.data.base import (
    BACKGROUND,
    IGNORE,
    Annotation,
    DataSet,
    Record,
    Subject,
    Transform,
    trainable,
)
from segsweep.data.formats import masks
from segsweep.data.geometry import Geometry, evaluation_geometry
from segsweep.data.loader import EvalLoader, TrainLoader, collate, generator
from segsweep.data.transforms import sample, training_geometry
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.seem import SEEMCriterion
from segsweep.model.found import SemanticMap
from segsweep.model.heads import frames
from segsweep.model.heads.frames import to_original
from segsweep.model.heads.query import reader
from segsweep.model.heads.query_semantic import best_classes
from segsweep.run import predictions
from segsweep.run.identity import Run
from segsweep.run.restore import load
from segsweep.story import train
from tests.painted import WORDS, Painted

HEIGHT, WIDTH = 30, 44
VALUES = [0, 1, 4, BACKGROUND, IGNORE]


def label_map() -> np.ndarray:
    """Blocks of all kinds of values."""
    blocks = np.random.default_rng(0).choice(VALUES, (6, 11)).astype(np.uint8)
    return blocks.repeat(5, 0).repeat(4, 1)


def slowly(labels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """What a sample shows at each of its pixels: the pixel of the image below its centre."""
    seen = np.full(geometry.size, IGNORE, np.uint8)
    scale = [n / r for n, r in zip(labels.shape, geometry.resized, strict=True)]
    for row in range(geometry.size[0]):
        for column in range(geometry.size[1]):
            y, x = row + geometry.offset[0], column + geometry.offset[1]
            if y < geometry.resized[0] and x < geometry.resized[1]:
                x = geometry.resized[1] - 1 - x if geometry.flip else x
                seen[row, column] = labels[int((y + 0.5) * scale[0]), int((x + 0.5) * scale[1])]
    return seen


def geometries() -> list[Geometry]:
    """Squashed and cropped, upright and flipped, larger and smaller."""
    record = Record(1, "", HEIGHT, WIDTH, [], labels="x")
    squash = DataSet("", "x", size=[40, 36])
    lsj = DataSet("", "x", size=[40, 37], transform=Transform["lsj"], scale=[0.4, 2.0])
    drawn = [
        training_geometry(data, record, generator(k)) for data in (squash, lsj) for k in range(8)
    ]
    return [*drawn, evaluation_geometry(squash, record), evaluation_geometry(lsj, record)]


def test_label_maps_are_resized_flipped_and_cropped_with_their_pixels():
    labels = label_map()
    record = Record(1, "", HEIGHT, WIDTH, [], labels="x")
    pixels = np.repeat(labels[..., None], 3, 2)
    seen = geometries()
    assert {geometry.flip for geometry in seen} == {True, False}
    assert len({geometry.resized for geometry in seen}) > 5
    for geometry in seen:
        expected = slowly(labels, geometry)
        found = sample(pixels, record, geometry, labels)
        assert found.labels.tolist() == [v for v in (0, 1, 4) if (expected == v).any()]
        for label, mask in zip(found.labels, found.masks, strict=True):
            assert np.array_equal(mask.numpy(), expected == int(label))
        assert found.boxes.shape == (len(found.labels), 4)


def test_a_class_has_the_target_of_an_instance_of_its_pixels():
    labels = label_map()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    codes = masks.encode(np.stack([labels == v for v in (0, 1, 4)]))
    instances = [Annotation(v, r, [], 1.0) for v, r in zip((0, 1, 4), codes, strict=True)]
    for geometry in geometries():
        one = sample(pixels, Record(1, "", HEIGHT, WIDTH, instances), geometry)
        other = sample(pixels, Record(1, "", HEIGHT, WIDTH, [], labels="x"), geometry, labels)
        for name in ("image", "labels", "boxes", "masks"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


class Plain(DataSet):
    """Grey images, the first of which is unknown or background throughout."""

    task: ClassVar[str] = "semantic"

    def classes(self) -> list[str]:
        return ["a", "b"]

    def records(self, split: str) -> list[Record]:
        return [Record(k, "", 16, 16, [], labels="x") for k in range(4)]

    def image(self, record: Record) -> np.ndarray:
        return np.full((16, 16, 3), 60 * record.image_id, np.uint8)

    def label_map(self, record: Record) -> np.ndarray:
        labels = np.full((16, 16), [IGNORE, BACKGROUND, 0, 1][record.image_id], np.uint8)
        labels[:8] = BACKGROUND
        return labels


def test_images_of_background_are_learnt():
    """They have no target, as an instance image whose objects a crop has lost."""
    data = Plain("", "x", size=[32, 32])
    assert len(trainable(data)) == 4
    (batch,) = EvalLoader(data, "val", 4)
    assert [len(target.labels) for target in batch.targets] == [0, 0, 1, 1]
    assert batch.targets[3].boxes.tolist() == [[0.5, 0.75, 1.0, 0.5]]


@pytest.mark.parametrize("model", ["maskdino_tiny", "seem_tiny"])
def test_a_batch_without_any_class_has_a_loss(model: str):
    config = compose([*WORDS, "metrics=overlap", f"model={model}", "model.weights=null"])
    built = config.model.build(Subject(["a"], "semantic")).train()
    data = Plain("", "x", size=[64, 64])
    records = data.records("train")[:2]
    geometry = Geometry((64, 64), (64, 64))
    samples = [sample(data.image(r), r, geometry, data.label_map(r)) for r in records]
    batch = collate(samples, data)
    loss = built.loss(built(batch.images, batch.targets), batch.targets)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_an_interrupted_run_sees_the_same_label_maps():
    data = Painted("", "x", train=8, val=2, side=64, size=[64, 64])
    whole = list(TrainLoader(data, batch_size=2, seed=3).batches(0, 6))
    rest = list(TrainLoader(data, batch_size=2, seed=3).batches(3, 3))
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        for a, b in zip(one.targets, other.targets, strict=True):
            assert torch.equal(a.masks, b.masks)
            assert a.labels.tolist() == b.labels.tolist() == [0]


SIZE, PADDED, QUERIES, CLASSES = (48, 56), (64, 64), 9, 5


def predicted(original: tuple[int, int], resize: Any) -> tuple[SemanticMap, Tensor]:
    """A prediction of random queries, and its scores by definition, all at once. (K, H, W)"""
    torch.manual_seed(0)
    logits, maps = 2 * torch.randn(QUERIES, CLASSES + 1), 6 * torch.randn(QUERIES, 16, 16)
    subject = Subject(["class"] * CLASSES, "semantic")
    read = reader(subject, SEEMCriterion(CLASSES).classify, resize=resize).read
    unit = torch.eye(QUERIES)[None, None]  # features are the masks themselves
    output = Output(PredictionSets(logits[None, None], None, unit), None, None, None, maps[None])
    found = read(output, 0, (SIZE, PADDED, original), 0.0)
    sure = to_original(maps[None], SIZE, PADDED, original, resize)[0].sigmoid()
    return found, torch.einsum("qk,qhw->khw", logits.softmax(-1)[:, :-1], sure)


@pytest.mark.parametrize("cells", [1, 5000, 2**24])
@pytest.mark.parametrize("original", [(20, 33), (96, 131), (64, 64)])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_classes_are_the_sum_over_all_queries(monkeypatch, resize, original, cells):
    monkeypatch.setattr(frames, "CELLS", cells)  # strips of single rows, of several, one strip
    found, scores = predicted(original, resize)
    best, classes = scores.max(0)
    torch.testing.assert_close(found.scores, best.clamp(max=1), atol=1e-5, rtol=1e-4)
    second = scores.topk(2, dim=0).values
    clear = second[0] - second[1] > 1e-4
    assert torch.equal(found.classes[clear].long(), classes[clear])
    assert clear.float().mean() > 0.99
    assert torch.equal(found.label_map(background=False), found.classes)
    nothing = found.label_map(background=True) == BACKGROUND
    assert torch.equal(nothing, found.scores < 0.5)
    assert nothing.any()
    assert not nothing.all()


def test_one_class_is_that_of_the_surest_query(monkeypatch):
    """Hundreds of queries that are nearly sure of nothing do not add up to a foreground."""
    original, number = (20, 33), 300
    p, maps = torch.full((number, 1), 0.01), torch.full((number, 16, 16), 4.0)
    p[7], maps[7, :8] = 0.9, -4.0
    for cells in (1, 2**24):
        monkeypatch.setattr(frames, "CELLS", cells)
        found = best_classes(p, maps, (SIZE, PADDED, original), "bilinear")
        sure = to_original(maps[None], SIZE, PADDED, original, "bilinear")[0].sigmoid()
        torch.testing.assert_close(found.scores, (p[:, :, None] * sure).amax(0))
        labels = found.label_map(background=True)
        assert set(labels.unique().tolist()) == {0, BACKGROUND}
        assert torch.equal(labels == 0, sure[7] * 0.9 >= 0.5)


@pytest.mark.parametrize(
    ("model", "domain", "metrics"),
    [("maskdino_tiny", "clean", "saliency"), ("seem_tiny", "street", "miou")],
)
def test_a_run_learns_label_maps(tmp_path: Path, model: str, domain: str, metrics: str):
    words = [
        *WORDS, f"model={model}", f"metrics={metrics}", f"data.domain={domain}", "data.train=12",
        "data.val=2", "hparams.epochs=3", "peft.rank=2", "io.log_every=1", "io.progress=false",
        f"io.results={tmp_path}", "hparams.batch_size=4",
    ]  # fmt: skip
    run = Run(compose(words))
    record = run.once(train)
    lines = [json.loads(x) for x in (run.directory / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 9
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    metric = run.config.metrics
    assert set(record["metrics"]) == set(metric.names())
    for name, told in record["metrics"].items():
        assert (told["unit"], told["direction"]) == metric.names()[name]
        assert told["protocol"] == metric.protocol()
        assert 0 <= told["value"] <= 100.5  # of E-measures n / (n - 1) is possible
    assert record["best"]["value"] == max(line[metric.key] for line in lines if metric.key in line)
    assert record["metrics"][metric.key]["value"] == pytest.approx(record["best"]["value"])
    assert record["data"]["classes"] == run.config.data.classes()
    assert record["data"]["background"] is True
    classes = {row["class"]: row for row in record["classes"]}
    if metrics == "miou":
        assert list(classes) == [*record["data"]["classes"], "background"]
        known = [row["IoU"] for row in classes.values() if row["IoU"] is not None]
        assert record["metrics"]["mIoU_bg"]["value"] == pytest.approx(np.mean(known))
    kept = predictions.of_run(run.directory)
    assert evaluated(load(run.directory), kept) == {
        name: told["value"] for name, told in record["metrics"].items()
    }
    counted = {row["class"]: row for row in record["analysis"]["classes"]}
    for row in classes.values():
        assert counted.get(row["class"], {"IoU": None})["IoU"] == row["IoU"]

"""What every metric of conf/metrics promises, whatever it measures: a new yaml is tested too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segsweep.data.base import BACKGROUND, Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.data.loader import Batch
from segsweep.metrics.base import Metric, of_classes
from segsweep.model.found import Instances, PictureClass, SemanticMap
from tests.words import class_of, compose, files

SIDE = 64
BLOCKS = [(4, 4, 40, 36), (20, 16, 30, 40)]  # x, y, width, height of the thing on each image
WORDS = list(files("metrics"))
TASKS = [(word, task) for word in WORDS for task in class_of("metrics", word).tasks]


def mask(number: int) -> np.ndarray:
    x, y, width, height = BLOCKS[number]
    there = np.zeros((SIDE, SIDE), bool)
    there[y : y + height, x : x + width] = True
    return there


class Things(DataSet):
    """Two images with one thing each, of the one class."""

    def __init__(self, task: str) -> None:
        super().__init__(name="things")
        self.task = task  # type: ignore[misc]

    def classes(self) -> list[str]:
        return ["thing"]

    def records(self, split: str) -> list[Record]:
        return [Record(n, f"{n}.png", SIDE, SIDE, [self.thing(n)], labels="x") for n in (0, 1)]

    def thing(self, number: int) -> Annotation:
        (rle,) = masks.encode(mask(number)[None])
        return Annotation(0, rle, masks.bbox(rle), float(masks.area(rle)), id=number + 1)

    def label_map(self, record: Record) -> np.ndarray:
        return np.where(mask(record.image_id), 0, BACKGROUND).astype(np.uint8)


def instances(there: np.ndarray) -> Instances:
    """One thing of class 0 as a model finds it; none where nothing is there."""
    found = torch.as_tensor(there)[None][: int(there.any())]
    boxes = torch.as_tensor(
        [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] for m in found.numpy()
         for ys, xs in [np.nonzero(m)]]
    ).float().view(-1, 4)  # fmt: skip
    columns = (torch.full((len(found),), 0.9), torch.zeros(len(found)).long(), boxes)
    return Instances(*columns, masks.encode(found.numpy()), (len(there), len(there[0])))


def semantic_map(there: np.ndarray) -> SemanticMap:
    return SemanticMap(torch.zeros(SIDE, SIDE, dtype=torch.uint8), torch.as_tensor(there).float())


def picture_class(there: np.ndarray) -> PictureClass:
    """The class of what is there, another one where nothing is."""
    return PictureClass(torch.tensor([0.9, 0.1] if there.any() else [0.1, 0.9]))


READ: dict[str, Any] = {
    "instances": instances, "semantic": semantic_map, "label": picture_class
}  # fmt: skip
DATA = {
    "instances": ["data=digits"], "semantic": ["data=kvasir", "data.root=any"],
    "label": ["data=digits_label", "model=vit_tiny_probe"],
}  # fmt: skip


@pytest.fixture(params=TASKS, ids=" ".join)
def judged(request: pytest.FixtureRequest) -> tuple[Metric, Any]:
    """A metric, and its values and those of each class for the things found on both images."""
    word, task = request.param
    metric = metric_of(word)

    def values(*found: np.ndarray) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
        evaluator = metric.evaluator(Things(task), "val")
        for number, there in enumerate(found):
            batch = Batch(torch.zeros(1, 3, 32, 32), [(32, 32)], [(32, 32)], [number], [])
            evaluator.update(batch, [READ[task](there)])
        return evaluator.compute(), of_classes(evaluator)

    return metric, values


def metric_of(word: str) -> Metric:
    """A metric as its yaml makes it, with data of a task that it judges."""
    return compose([*DATA[class_of("metrics", word).tasks[0]], f"metrics={word}"]).metrics


@pytest.mark.parametrize("word", WORDS)
def test_names_units_and_directions_are_declared(word: str) -> None:
    metric = metric_of(word)
    assert metric.key in metric.names()
    assert all(unit and better in ("higher", "lower") for unit, better in metric.names().values())
    assert metric.protocol()


@pytest.mark.parametrize("word", WORDS)
def test_what_tables_ask_for_is_one_value(word: str) -> None:
    metric = metric_of(word)
    measured = [metric.quantity(name) for name in metric.names()]
    assert metric.quantities.keys() <= metric.names().keys()
    assert len({*measured}) == len(measured)


def test_the_truth_is_the_best_and_nothing_is_worse(judged: tuple[Metric, Any]) -> None:
    metric, values = judged
    (truth, _), (nothing, _) = values(mask(0), mask(1)), values(*[np.zeros((SIDE, SIDE), bool)] * 2)
    assert truth.keys() == nothing.keys() == metric.names().keys()
    assert truth[metric.key] is not None
    for name, (unit, better) in metric.names().items():
        best, worst = truth[name], nothing[name]
        if best is None or worst is None:  # not defined, such as the AP of small things
            continue
        assert best > worst if better == "higher" else best < worst
        if unit == "%":
            assert best == pytest.approx(100 if better == "higher" else 0, abs=0.5)


def test_a_missed_thing_is_worse_than_a_found_one(judged: tuple[Metric, Any]) -> None:
    metric, values = judged
    better = metric.names()[metric.key][1]
    nothing = np.zeros((SIDE, SIDE), bool)
    right, half = (values(mask(0), there)[0][metric.key] for there in (mask(1), nothing))
    assert right > half if better == "higher" else right < half


def test_nothing_seen_is_no_number(judged: tuple[Metric, Any]) -> None:
    _, values = judged
    assert all(value is None for value in values()[0].values())


def test_classes_are_told_by_name(judged: tuple[Metric, Any]) -> None:
    _, values = judged
    names = [row["class"] for row in values(mask(0), mask(1))[1]]
    assert names in ([], ["thing"], ["thing", "background"])

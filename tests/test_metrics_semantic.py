"""Metrics of label maps and of grey maps: the numbers of pysodmetrics, and of slow definitions."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import py_sod_metrics as sod
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.config import compose, words
from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record
from segsweep.data.loader import Batch
from segsweep.metrics.base import Metric, of_classes
from segsweep.metrics.ber import BER
from segsweep.metrics.miou import Confusion, MIoU, by_class
from segsweep.metrics.overlap import Overlap
from segsweep.metrics.saliency import Saliency, enhanced_alignment, structure, weighted_f
from segsweep.model.found import SemanticMap
from segsweep.run.callbacks import Best
from tests.painted import WORDS

TOLERANCE = 1e-6


class Maps(DataSet):
    """Images that are nothing but label maps."""

    task: ClassVar[str] = "semantic"

    def __init__(self, *label_maps: np.ndarray, classes: int = 1) -> None:
        super().__init__(name="maps")
        self.label_maps, self.number = label_maps, classes

    def classes(self) -> list[str]:
        return [f"class {k}" for k in range(self.number)]

    def records(self, split: str) -> list[Record]:
        sizes = enumerate(m.shape for m in self.label_maps)
        return [Record(k, "", height, width, [], labels="x") for k, (height, width) in sizes]

    def label_map(self, record: Record) -> np.ndarray:
        return self.label_maps[record.image_id]


class NoBackground(Maps):
    background: ClassVar[bool] = False


def judged(metric: Metric, data: Maps, *found: tuple[Any, Any]) -> dict[str, float | None]:
    """Values of predictions (classes, scores) for the images of a set, one batch for each."""
    evaluator = metric.evaluator(data, "val")
    for k, (classes, scores) in enumerate(found):
        one = SemanticMap(torch.as_tensor(classes, dtype=torch.uint8), torch.as_tensor(scores))
        batch = Batch(torch.zeros(1, 3, 32, 32), [(32, 32)], [(32, 32)], [k], [])
        evaluator.update(batch, [one])
    return evaluator.compute()


def of_masks(masks: list[np.ndarray], greys: list[np.ndarray], metric: Metric) -> dict[str, Any]:
    data = Maps(*(np.where(mask, 0, BACKGROUND).astype(np.uint8) for mask in masks))
    return judged(metric, data, *((np.zeros_like(grey), grey) for grey in greys))


SALIENCY, OVERLAP, RATES = Saliency("", "x"), Overlap("", "x"), BER("", "x")


@st.composite
def pairs(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """A mask and a grey map of its size: noise, few levels, nearly right, constant; any mask."""
    side = st.integers(2, 24)
    shape = draw(side), draw(side)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = np.indices(shape)
    masks = {
        "noise": rng.random(shape) < rng.random(),
        "box": (rows >= shape[0] // 3) & (columns < 1 + shape[1] // 2),
        "dot": (rows == rng.integers(shape[0])) & (columns == rng.integers(shape[1])),
        "empty": np.zeros(shape, bool),
        "full": np.ones(shape, bool),
    }
    mask = masks[draw(st.sampled_from(sorted(masks)))]
    noise = rng.random(shape)
    greys = {
        "noise": noise,
        "levels": rng.integers(0, 4, shape) / 3,
        "near": np.clip(mask * 0.9 + 0.2 * noise - 0.1, 0, 1),
        "right": mask.astype(float),
        "constant": np.full(shape, draw(st.sampled_from([0.0, 0.25, 1.0]))),
    }
    return mask, greys[draw(st.sampled_from(sorted(greys)))]


def oracle(measure: Any, mask: np.ndarray, grey: np.ndarray) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing
        measure.step(grey, mask, normalize=False)
        return measure.get_results()


@settings(max_examples=120, deadline=None)
@given(pairs())
def test_measures_of_an_image_are_those_of_pysodmetrics(pair):
    mask, grey = pair
    expected = oracle(sod.Smeasure(), mask, grey)["sm"]
    assert np.isnan(expected) or structure(grey, mask) == pytest.approx(expected, abs=TOLERANCE)
    adaptive, curve = enhanced_alignment(grey, mask)
    found = oracle(sod.Emeasure(), mask, grey)["em"]
    assert adaptive == pytest.approx(found["adp"], abs=TOLERANCE)
    assert np.abs(curve - found["curve"]).max() < TOLERANCE
    for beta2 in (1.0, 0.3):
        found = oracle(sod.WeightedFmeasure(beta2), mask, grey)["wfm"]
        assert weighted_f(grey, mask, beta2) == pytest.approx(found, abs=TOLERANCE)


def test_an_object_at_the_border_has_an_s_measure_all_the_same():
    mask = np.zeros((6, 6), bool)
    mask[:, -1] = True
    assert np.isnan(oracle(sod.Smeasure(), mask, mask.astype(float))["sm"])
    assert structure(mask.astype(float), mask) == pytest.approx(1)


def test_means_over_images_of_8_bits_are_those_of_pysodmetrics():
    rng = np.random.default_rng(0)
    masks = [rng.random((h, w)) < 0.3 for h, w in ((20, 30), (33, 17), (24, 24))]
    masks.append(np.zeros((9, 9), bool))
    files = [rng.integers(20, 200, mask.shape).astype(np.uint8) // 2 + 50 * mask for mask in masks]
    measures = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    for mask, file in zip(masks, files, strict=True):
        for measure in measures:
            measure.step(file.astype(np.uint8), mask.astype(np.uint8) * 255)
    s, e, f, mae = (measure.get_results() for measure in measures)
    values = of_masks(masks, [file / 255 for file in files], SALIENCY)
    expected = {
        "S": s["sm"], "F_weighted": f["wfm"], "MAE": mae["mae"], "E_adaptive": e["em"]["adp"],
        "E_mean": e["em"]["curve"].mean(), "E_max": e["em"]["curve"].max(),
    }  # fmt: skip
    assert values == pytest.approx({k: 100 * v for k, v in expected.items()}, abs=1e-4)
    assert set(values) == set(SALIENCY.names())


@settings(max_examples=60, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=4))
def test_overlap_and_error_rate_are_those_of_pysodmetrics(listed):
    masks, greys = zip(*listed, strict=True)
    handlers = {}
    for ending, by_image in {"image": True, "set": False}.items():
        options = {"with_dynamic": False, "with_adaptive": False, "with_binary": True}
        for name, handler in {"Dice": sod.DICEHandler, "IoU": sod.IOUHandler}.items():
            handlers[f"{name}_{ending}"] = handler(**options, sample_based=by_image)
        handlers["BER" if ending == "set" else "BER_image"] = sod.BERHandler(
            **options, sample_based=by_image
        )
    both = sod.FmeasureV2(handlers)
    for mask, grey in listed:
        both.step(grey, mask, normalize=False)
    expected = {name: 100 * found["binary"] for name, found in both.get_results().items()}
    greys = [np.where(grey == 0.5, 0.4, grey) for grey in greys]  # where >= differs from >
    values = of_masks(list(masks), list(greys), OVERLAP)
    if all((mask | (grey > 0.5)).any() for mask, grey in listed):
        assert values == pytest.approx({k: expected[k] for k in values}, abs=TOLERANCE)
    values = of_masks(list(masks), list(greys), RATES)
    if all(mask.any() and not mask.all() for mask in masks):
        assert values == pytest.approx({k: expected[k] for k in values}, abs=TOLERANCE)


def test_nothing_found_where_nothing_is_has_no_fault():
    nothing, something = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    right = of_masks([nothing, something], [nothing * 1.0, something * 1.0], OVERLAP)
    assert set(right.values()) == {100.0}
    assert of_masks([nothing], [something * 1.0], OVERLAP)["IoU_image"] == 0
    rates = of_masks([nothing, something], [something * 1.0, something * 1.0], RATES)
    assert rates == pytest.approx({"BER": 100 * 4 / 28 / 2, "BER_image": 100 * 4 / 16 / 2})
    assert of_masks([], [], OVERLAP) == dict.fromkeys(OVERLAP.names())
    assert of_masks([], [], RATES) == {"BER": None, "BER_image": None}
    assert of_masks([], [], SALIENCY) == dict.fromkeys(SALIENCY.names())


def slow_iou(truths: list[np.ndarray], found: list[np.ndarray], value: int) -> float:
    """IoU of one value over all images together, unlabelled pixels left out."""
    both = either = 0
    for truth, one in zip(truths, found, strict=True):
        there, said = (truth == value), (one == value) & (truth != IGNORE)
        both, either = both + (there & said).sum(), either + (there | said).sum()
    return both / either if either else np.nan


@pytest.mark.parametrize("kind", [Maps, NoBackground])
def test_one_confusion_matrix_over_the_set(kind: type[Maps]):
    rng = np.random.default_rng(1)
    nothing = [BACKGROUND] if kind is Maps else []
    values, count = [0, 1, 2, *nothing, IGNORE], 5  # neither truth nor prediction has the last two
    truths = [rng.choice(values, (8, w)).astype(np.uint8) for w in (6, 40)]
    classes = [rng.integers(0, 3, truth.shape) for truth in truths]
    scores = [rng.random(truth.shape) for truth in truths]
    metric = MIoU("", "x")
    result = judged(metric, kind(*truths, classes=count), *zip(classes, scores, strict=True))
    found = [
        np.where((s < 0.5) & bool(nothing), BACKGROUND, c)
        for c, s in zip(classes, scores, strict=True)
    ]
    ious = {v: slow_iou(truths, found, v) for v in (*range(count), *nothing)}
    foreground = [ious[v] for v in range(3)]
    assert result["mIoU_fg"] == pytest.approx(100 * np.mean(foreground))
    right = {v: [(f == t)[t == v] for f, t in zip(found, truths, strict=True)] for v in ious}
    every = {v: np.concatenate(parts) for v, parts in right.items()}
    assert result["mAcc_fg"] == pytest.approx(100 * np.mean([every[v].mean() for v in range(3)]))
    pixels = np.concatenate([every[v] for v in range(3)])
    assert result["aAcc_fg"] == pytest.approx(100 * pixels.mean())
    if nothing:
        pixels = np.concatenate([pixels, every[BACKGROUND]])
        assert result["mIoU_bg"] == pytest.approx(100 * np.mean([*foreground, ious[BACKGROUND]]))
        assert result["aAcc_bg"] == pytest.approx(100 * pixels.mean())
    else:
        assert [result[f"{name}_bg"] for name in ("mIoU", "mAcc", "aAcc")] == [None] * 3
    assert set(result) == set(metric.names())


def test_classes_can_be_looked_at_one_by_one():
    truth = np.array([[0, 0, 1, BACKGROUND]], np.uint8)
    evaluator = Confusion(Maps(truth, classes=3), "val")
    found = np.array([[0, 1, 1, 1]], np.uint8)
    evaluator.add(0, evaluator.judge(truth, found, np.ones((1, 4))))
    iou, accuracy = by_class(evaluator.pixels)
    np.testing.assert_allclose(iou, [1 / 2, 1 / 3, np.nan, 0])
    np.testing.assert_allclose(accuracy, [1 / 2, 1, np.nan, 0])
    rows = of_classes(evaluator)
    assert [row["class"] for row in rows] == ["class 0", "class 1", "class 2", "background"]
    assert [row["IoU"] for row in rows] == pytest.approx([50, 100 / 3, None, 0])
    assert [row["Acc"] for row in rows] == pytest.approx([50, 100, None, 0])


@pytest.mark.parametrize("kind", [Maps, NoBackground])
def test_means_are_those_of_the_classes(kind: type[Maps]):
    rng = np.random.default_rng(2)
    truth = rng.choice([0, 1, 2, BACKGROUND if kind is Maps else 2, IGNORE], (9, 30))
    evaluator = MIoU("", "x").evaluator(kind(truth.astype(np.uint8), classes=4), "val")
    found = rng.choice([0, 1, 2, 2], truth.shape)
    evaluator.add(0, evaluator.judge(truth, found, np.ones(truth.shape)))
    rows, values = of_classes(evaluator), evaluator.compute()
    assert len(rows) == 5 - (kind is NoBackground)
    for ending, some in {"fg": rows[:4], "bg": rows}.items():
        for name in ("IoU", "Acc") if ending == "fg" or kind is Maps else ():
            mean = np.mean([row[name] for row in some if row[name] is not None])
            assert values[f"m{name}_{ending}"] == pytest.approx(mean)
    assert of_classes(OVERLAP.evaluator(Maps(truth), "val")) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["metrics=miou"], "metrics=miou judges label maps, but data=digits has instances"),
        (["data=kvasir", "metrics=coco"], "choices: ber, miou, overlap, saliency"),
        (["data=trans10k", "metrics=ber"], "data=trans10k has 11 classes; choose metrics=miou"),
        (["data=ade20k", "metrics=miou", "metrics.key=mIoU_bg"], "choose mIoU_fg"),
        (["data=camo", "metrics=saliency", "metrics.beta2=0"], "must be more than 0"),
    ],
)
def test_a_metric_that_cannot_judge_the_data_is_refused(overrides: list[str], told: str):
    with pytest.raises(UserError, match=told):
        compose(overrides)


def test_every_metric_says_its_protocol():
    for word, kind in words("metrics").items():
        assert issubclass(kind, Metric)
        assert kind("", word).protocol()
    assert Saliency("", "x", beta2=0.3).protocol() == "saliency beta2 0.3"


@pytest.mark.parametrize(
    ("metric", "best"),
    [("ber", [True, False, True, False]), ("overlap", [True, True, False, False])],
)
def test_the_best_value_is_the_lowest_where_lower_is_better(metric: str, best: list[bool]):
    anything: Any = None
    keeper = Best(compose([*WORDS, f"metrics={metric}"]), anything)
    found = []
    for value in (20.0, 30.0, 10.0, None):
        found.append(keeper.better(value))
        if found[-1]:
            keeper.record = {"value": value}
    assert found == best

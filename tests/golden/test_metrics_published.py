"""Metrics of label maps agree with those of the published code of Conv-LoRA, and where they do not.

What differs is meant: `PROTOCOLS` says it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded import FOLDER, Recorded
from torch import Tensor

from segsweep.data.base import BACKGROUND, IGNORE
from segsweep.metrics.base import of_classes
from segsweep.metrics.ber import BER
from segsweep.metrics.label_maps import BinaryMetric
from segsweep.metrics.miou import MIoU
from segsweep.metrics.overlap import Overlap
from segsweep.metrics.saliency import Saliency
from tests.test_metrics_semantic import Maps, NoBackground, judged

pytestmark = pytest.mark.golden
FILE, WITHIN = "metrics_ag", 1e-2  # percent points: the manifest's 1e-4 of a fraction
DARK = 125 / 255  # a pixel is shadow above it in their BER; ours follows the model, whose is 0.5
BETA2 = 0.3  # in the place of beta^2 of their weighted F-measure; ours has 1 unless told
GREY = {"sm": "S", "em_curve_mean": "E_mean", "fm_weighted": "F_weighted", "mae": "MAE"}
PROTOCOLS = {
    "ber": "an image that lacks a side has the error .5 of this side there, none of it here",
    "binary_iou": "nothing found where nothing is has 0 there, 100 here",
    "mc/ignore_as_255": "unlabelled pixels lie in the union there; a mistake of their program",
}


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded(FOLDER / "heads")


def image(truth: Tensor, probability: Tensor, metric: BinaryMetric, least: float = 0.5) -> dict:
    """Values of one image. (H, W) 0 or 1, (H, W)"""
    labels = np.where(truth.numpy() == 1, 0, BACKGROUND).astype(np.uint8)
    found = torch.where(probability > least, 0, BACKGROUND)
    scores = torch.where(found == 0, 1.0, 0.0) if least != 0.5 else probability
    return judged(metric, Maps(labels), (found, scores))


def ordinary(truth: Tensor) -> bool:
    """Whether both sides are there."""
    return 0 < float(truth.float().mean()) < 1


@pytest.mark.parametrize("name", [*GREY, "ber", "binary_iou"])
def test_values_of_images(recorded, name):
    arrays = recorded.arrays(FILE)
    metric, key, least = {
        "ber": (BER("ber"), "BER_image", DARK),
        "binary_iou": (Overlap("overlap"), "IoU_image", 0.5),
    }.get(name) or (Saliency("saliency", beta2=BETA2), GREY[name], 0.5)
    values = []
    pairs = zip(arrays["gt"][:, 0], arrays["prob"][:, 0], strict=True)
    for i, (truth, probability) in enumerate(pairs):
        values.append(image(truth, probability, metric, least)[key])
        if ordinary(truth) or name not in PROTOCOLS:
            wanted = 100 * float(arrays[f"{name}_per_image"][i])
            assert values[-1] == pytest.approx(wanted, abs=WITHIN), i
    first = 100 * float(arrays[f"{name}_first4"])
    assert all(ordinary(truth) for truth in arrays["gt"][:4])
    assert np.mean(values[:4]) == pytest.approx(first, abs=WITHIN)


def test_one_class_alone_is_judged_by_what_is_there(recorded):
    arrays = recorded.arrays(FILE)
    truths, probabilities = arrays["gt"][:, 0], arrays["prob"][:, 0]
    (none,) = (i for i, truth in enumerate(truths) if not truth.any())
    (full,) = (i for i, truth in enumerate(truths) if truth.all())
    nothing = torch.zeros_like(probabilities[none])
    assert image(truths[none], nothing, Overlap("overlap"))["IoU_image"] == 100
    assert float(arrays["binary_iou_per_image"][none]) == 0
    missed = float((probabilities[full] <= DARK).double().mean())
    assert image(truths[full], probabilities[full], BER("ber"), DARK)["BER_image"] == (
        pytest.approx(100 * missed)
    )
    assert float(arrays["ber_per_image"][full]) == pytest.approx(0.5 + missed / 2, abs=1e-4)


def test_several_classes(recorded):
    arrays = recorded.arrays(FILE)
    scores, truth = arrays["mc/scores_f16"], arrays["mc/gt"].numpy()
    data, found = NoBackground(*truth, classes=scores.shape[1]), scores.argmax(1)
    metric = MIoU("miou")
    evaluator = metric.evaluator(data, "val")
    for labels, classes in zip(truth, found.numpy(), strict=True):
        judgement = evaluator.judge(labels, classes.astype(np.uint8), np.zeros(labels.shape))
        evaluator.add(0, judgement)
    values = [row["IoU"] for row in of_classes(evaluator)]
    shared, union = (arrays[f"mc/ignore_as_minus1_{part}"] for part in ("inter", "union"))
    assert values == pytest.approx((100 * shared / union).tolist(), abs=WITHIN)
    mean = evaluator.compute()["mIoU_fg"]
    assert mean == pytest.approx(100 * float(arrays["mc/ignore_as_minus1_miou"]), abs=WITHIN)
    classes = np.arange(scores.shape[1])[None, :, None, None]
    unknown = (truth == IGNORE)[:, None] & (found.numpy()[:, None] == classes)
    inflated = union + torch.from_numpy(unknown.sum((0, 2, 3)))
    assert torch.equal(inflated.float(), arrays["mc/ignore_as_255_union"])
    assert torch.equal(shared, arrays["mc/ignore_as_255_inter"])
    theirs = float((shared / inflated).mean())
    assert theirs == pytest.approx(float(arrays["mc/ignore_as_255_miou"]), abs=1e-6)

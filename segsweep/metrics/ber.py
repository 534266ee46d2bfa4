"""Balanced error rate of the foreground, in percent: how shadow detection is judged.

    BER = 1 - (TP / (TP + FN) + TN / (TN + FP)) / 2

`BER` counts the pixels of all images together (Vicente 2016). The published code of Conv-LoRA has
the mean of the images' own rates, which is `BER_image`. A side that truth lacks (an image without
shadow) is left out; pysodmetrics has a rate of 0 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.metrics.label_maps import BinaryMetric, PixelCounts, percent

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet


@dataclass
class BER(BinaryMetric):
    """Balanced error rate of a binary set, foreground where its score reaches 0.5."""

    values = dict.fromkeys(("BER", "BER_image"), ("%", "lower"))
    rules = "balanced error rate"

    key: str = "BER"

    def evaluator(self, data: DataSet, split: str) -> PixelCounts:
        """Return an empty evaluator for a split."""
        return PixelCounts(data, split, balanced_error)


def balanced_error(counts: np.ndarray) -> dict[str, float | None]:
    """Return the values of `BER`; see `PixelCounts`. (N, 4) -> percent"""
    return {
        "BER": percent(rates(counts.sum(0, keepdims=True))),
        "BER_image": percent(rates(counts)),
    }


def rates(counts: np.ndarray) -> np.ndarray:
    """Return the mean of both error rates of each row, nan without pixels. (N, 4) -> (N,)"""
    import numpy as np

    hits, false_alarms, misses, rejections = counts.T
    sides = np.stack([hits + misses, rejections + false_alarms])
    errors = np.stack([misses, false_alarms]) / np.maximum(sides, 1)
    number = (sides > 0).sum(0)
    return np.where(number > 0, errors.sum(0) / np.maximum(number, 1), np.nan)

"""Dice and IoU (Jaccard index) of the foreground, in percent: by image, and over the set.

With A and B the pixels that are foreground in truth and in prediction:

    Dice = 2 |A and B| / (|A| + |B|)        IoU = |A and B| / |A or B|

`_image` is the mean over the images, as ISIC 2017 and the published code of Conv-LoRA have it;
`_set` counts the pixels of all images together. Nothing found where nothing is has 1: A equals B.
There, pysodmetrics and torchmetrics have 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.metrics.label_maps import BinaryMetric, PixelCounts, percent

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet


@dataclass
class Overlap(BinaryMetric):
    """Dice and IoU of a binary set, foreground where its score reaches 0.5."""

    values = dict.fromkeys(("Dice_image", "IoU_image", "Dice_set", "IoU_set"), ("%", "higher"))
    rules = "foreground overlap"

    key: str = "IoU_image"

    def evaluator(self, data: DataSet, split: str) -> PixelCounts:
        """Return an empty evaluator for a split."""
        return PixelCounts(data, split, overlap)


def overlap(counts: np.ndarray) -> dict[str, float | None]:
    """Return the values of `Overlap`; see `PixelCounts`. (N, 4) -> percent"""
    values: dict[str, float | None] = {}
    total = counts.sum(0, keepdims=True)[: len(counts)]
    for ending, rows in {"image": counts, "set": total}.items():
        hits, false_alarms, misses, _ = rows.T
        union = hits + false_alarms + misses
        # as if an image of nothing had one pixel, found
        hits, union = hits + (union == 0), union + (union == 0)
        values[f"Dice_{ending}"] = percent(2 * hits / (union + hits))
        values[f"IoU_{ending}"] = percent(hits / union)
    return values

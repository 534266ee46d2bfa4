"""The analysis of label maps: IoU of classes, images and regions, what is taken for what.

All follows from the counts of pixels that a file of predictions holds; no map is unpacked. Shares
and IoU are percent; None stands where nothing is defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segsweep.analysis import slices
from segsweep.analysis.study import IOU, Analysis, Listing
from segsweep.base.errors import UserError
from segsweep.metrics.label_maps import percent
from segsweep.metrics.miou import by_class

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.data.base import DataSet
    from segsweep.run.predictions import PredictionFile

SHOWN = 20  # confusions and images that a record names
QUARTERS = ("lowest", "lower quarter", "median", "upper quarter", "highest")
SHARES = {"below 1 %": 0.01, "1 to 10 %": 0.1, "above 10 %": 1.0}
"""Of an image, that a region has: all pixels of a class in an image. Upper bounds."""


class ScoredImage(NamedTuple):
    """An image, its IoU, and the most frequent mistake on it."""

    image_id: int
    file: str
    iou: float | None
    true: str | None
    taken_for: str | None
    pixels: int


def analysis(
    config: Config,
    predicted: PredictionFile,
    columns: Sequence[str],
    iou: float,
    score: float | None,
) -> Analysis:
    """Count the pixels of the images and say what follows; see `study.analyse`."""
    if (iou, score) != (IOU, None):
        raise UserError(f"{predicted.path}: holds label maps; --iou and --score are of objects")
    names = names_of(config.data)
    files = {record.image_id: record.file for record in config.data.records("val")}
    total, there = np.zeros((len(names),) * 2, np.int64), np.zeros(len(names), np.int64)
    images, parts = [], []
    for image_id, judged in predicted:
        total += judged.pixels
        there += judged.pixels.sum(1) > 0
        images.append(_scored(image_id, files[image_id], judged.pixels, names))
        parts.append(regions(judged.pixels))
    values = [image.iou for image in images if image.iou is not None]
    worst = sorted((i for i in images if i.iou is not None), key=lambda i: i.iou or 0.0)
    spread = np.quantile(values, np.linspace(0, 1, len(QUARTERS))) if values else []
    mistakes = confusions(total, names)
    numbers = {
        "images": len(images),
        "classes": classes(total, there, names),
        "confusions": [list(row) for row in mistakes[:SHOWN]],
        "image_iou": {
            "mean": percent(np.array(values) / 100),
            **dict(zip(QUARTERS, map(float, spread), strict=False)),
        },
        "worst": [list(image) for image in worst[:SHOWN]],
        "regions": by_share(np.concatenate([np.empty((0, 2)), *parts])),
        "slices": slices.results(config, predicted, columns),
    }
    lists = {
        "images": Listing(ScoredImage._fields, images),
        "confusion": Listing(["true", "predicted", "pixels", "percent of true"], mistakes),
    }
    return Analysis(numbers, lists)


def names_of(data: DataSet) -> list[str]:
    """Return the names of the classes, at last of what is of none."""
    return [*data.classes(), "background"]


def image_iou(pixels: np.ndarray) -> float | None:
    """Return the mean IoU of the classes that truth or prediction has on one image.

    Background is none of them; nothing found where nothing is has 100.
    """
    iou, _ = by_class(pixels)
    value = percent(iou[:-1])
    return 100.0 if value is None and pixels.any() else value


def _scored(image_id: int, file: str, pixels: np.ndarray, names: list[str]) -> ScoredImage:
    worst = confusions(pixels, names)[:1]
    true, other, number = worst[0][:3] if worst else (None, None, 0)
    return ScoredImage(image_id, file, image_iou(pixels), true, other, number)


def classes(total: np.ndarray, there: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return how each class was found that there is, in truth on so many images, or predicted."""
    iou, accuracy = by_class(total)
    positive = total.sum(0)
    with np.errstate(invalid="ignore"):
        precision = total.diagonal() / positive
    return [
        {
            "class": name,
            "images": int(there[k]),
            "pixels": int(total[k].sum()),
            "predicted": int(positive[k]),
            "IoU": percent(iou[k : k + 1]),
            "Acc": percent(accuracy[k : k + 1]),
            "precision": percent(precision[k : k + 1]),
        }
        for k, name in enumerate(names)
        if total[k].any() or positive[k]
    ]


def confusions(total: np.ndarray, names: list[str]) -> list[tuple[str, str, int, float]]:
    """Return true class, what it is taken for, pixels, percent of the true class; largest first.

    (K + 1, K + 1)
    """
    wrong = total - np.diag(total.diagonal())
    places = np.argwhere(wrong)
    order = np.argsort(-wrong[tuple(places.T)], kind="stable")
    return [
        (names[true], names[other], int(total[true, other]),
         float(100 * total[true, other] / total[true].sum()))
        for true, other in places[order].tolist()
    ]  # fmt: skip


def regions(pixels: np.ndarray) -> np.ndarray:
    """Return the regions of an image: share of it, and IoU, both from 0 to 1. -> (n, 2)"""
    iou, _ = by_class(pixels)
    shares = pixels.sum(1)[:-1] / max(pixels.sum(), 1)
    return np.column_stack([shares, iou[:-1]])[shares > 0]


def by_share(found: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return how regions were found by their share of the image; see `regions`. (n, 2)"""
    shares, iou = found.T
    places = np.searchsorted([*SHARES.values()], shares)
    return {
        name: {
            "regions": int((places == k).sum()),
            "IoU": percent(iou[places == k]),
            "missed": int((iou[places == k] == 0).sum()),
        }
        for k, name in enumerate(SHARES)
    }

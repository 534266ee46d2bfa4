"""Numbers that follow from matches: recall by size, missed objects, calibration, the best score.

Shares are percent, scores and IoU thresholds lie in [0, 1]. None stands where nothing is defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from segsweep.analysis.matches import Matches
from segsweep.metrics.coco import SIZES

LIMITS = (32**2, 96**2)  # pixels of area: small, medium, large (Lin 2014)
BINS = 10  # of calibration, equally wide
SHOWN = 20  # missed objects that a record names


class Missed(NamedTuple):
    """An object that no prediction of at least the score threshold found."""

    image_id: int
    file: str
    annotation_id: int
    class_name: str
    size: str
    area: float  # pixels, as annotated


class Operating(NamedTuple):
    """Where F1, of predictions of all classes together, is best."""

    score: float
    f1: float
    precision: float
    recall: float


def size_of(area: float) -> str:
    """Return the size of an object by its area, in COCO's letters."""
    return SIZES[int(np.searchsorted(LIMITS, area, side="right"))]


def best_score(matches: Matches) -> Operating | None:
    """Return the score threshold where F1 = 2 TP / (predictions + objects) is best.

    Of equal ones the highest; None where nothing is right.
    """
    order = np.argsort(-matches.scores, kind="stable")
    scores, right = matches.scores[order], np.cumsum(matches.right[order])
    if not len(scores) or not right[-1]:
        return None
    predictions = np.arange(1, len(scores) + 1)
    f1 = 2 * right / (predictions + len(matches.finders))
    f1[:-1][scores[:-1] == scores[1:]] = -1  # a threshold keeps all predictions of one score
    k = int(f1.argmax())
    share = 100 * right[k]
    recall = share / len(matches.finders)
    precision = share / predictions[k]
    return Operating(float(scores[k]), 100 * float(f1[k]), float(precision), float(recall))


def recall(scores: np.ndarray, score: float) -> dict[str, Any]:
    """Return how many of some objects predictions of at least a score found."""
    hits = int((scores >= score).sum())
    return {
        "objects": len(scores),
        "found": hits,
        "recall": 100 * hits / len(scores) if len(scores) else None,
    }


def recall_by_size(matches: Matches, score: float) -> dict[str, dict[str, Any]]:
    """Return recall of all objects and of those of each size."""
    sizes = np.array([size_of(a.area) for _, a in matches.objects])
    by_size = {s: recall(matches.finders[sizes == s], score) for s in SIZES}
    return {"all": recall(matches.finders, score), **by_size}


def missed(matches: Matches, score: float, classes: Sequence[str]) -> list[Missed]:
    """Return the missed objects in the order of evaluation."""
    return [
        Missed(r.image_id, r.file, a.id, classes[a.category], size_of(a.area), a.area)
        for (r, a), object_score in zip(matches.objects, matches.finders, strict=True)
        if object_score < score
    ]


def calibration(scores: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Compare scores with precision: ECE is the mean gap over predictions (Küppers 2020, D-ECE).

    Each of `bins`, equally wide from 0 to 1, holds a number of predictions, their mean score and
    the share of right ones, both in percent. Where nothing is right there is no ECE: low scores
    alone would make it look perfect.
    """
    place = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = 100 * np.bincount(place, scores, BINS) / count
        share = 100 * np.bincount(place, right, BINS) / count
    gap = np.abs(mean - share)
    occupied = count > 0
    told = bool(right.any())
    return {
        "ECE": float((count * gap)[occupied].sum() / count.sum()) if told else None,
        "MCE": float(gap[occupied].max()) if told else None,
        "predictions": len(scores),
        "bins": [
            [int(n), round(float(m), 2), round(float(s), 2)] if n else [0, None, None]
            for n, m, s in zip(count, mean, share, strict=True)
        ],
    }

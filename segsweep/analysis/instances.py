"""The analysis of instances: recall, missed objects, errors and calibration at one IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segsweep.analysis import numbers, slices
from segsweep.analysis.matches import match
from segsweep.analysis.study import HALF, Analysis, Listing

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.run.predictions import PredictionFile


def analysis(
    config: Config,
    predicted: PredictionFile,
    columns: Sequence[str],
    iou: float,
    score: float | None,
) -> Analysis:
    """Match the objects of the images and say what follows; see `study.analyse`."""
    max_dets = getattr(config.metrics, "max_dets", 100)  # other metrics than COCO's set none
    matches = match(config.data, predicted, iou, max_dets, predicted.masks)
    best = numbers.best_score(matches)
    if score is None:
        score = best.score if best else HALF
    least = score
    missed = numbers.missed(matches, score, predicted.head["classes"])

    def recall(images: set[int]) -> dict[str, Any]:
        there = [record.image_id in images for record, _ in matches.objects]
        return numbers.recall(matches.finders[np.array(there, bool)], least)

    values = {
        "iou": iou,
        "matched": "masks" if matches.by_masks else "boxes",
        "score": score,
        "images": len(matches.images),
        "best": best._asdict() if best else None,
        "recall": numbers.recall_by_size(matches, score),
        "missed": {"count": len(missed), "first": [list(m) for m in missed[: numbers.SHOWN]]},
        "errors": matches.errors() if len(matches.objects) else None,
        "calibration": numbers.calibration(matches.scores, matches.right),
        "slices": slices.results(config, predicted, columns, recall),
    }
    return Analysis(values, {"missed": Listing(numbers.Missed._fields, missed)})

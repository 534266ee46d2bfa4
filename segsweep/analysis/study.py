"""The analysis of one run: all numbers that follow from its predictions and the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from segsweep.analysis.numbers import Missed
    from segsweep.base.config import Config
    from segsweep.run.predictions import PredictionFile

IOU = 0.5
HALF = 0.5  # the score threshold where none was measured
BEST = "best F1 on its validation images"  # what a measured one is


@dataclass(frozen=True)
class Analysis:
    """The numbers, as records hold them, and every missed object."""

    numbers: dict[str, Any]
    missed: list[Missed]


def analyse(
    config: Config,
    predicted: PredictionFile,
    *,
    columns: Sequence[str] = (),
    iou: float = IOU,
    score: float | None = None,
) -> Analysis:
    """Analyse the predictions of a run of this config.

    Recall and missed objects hold at `score`, by default that of the best F1 of these predictions;
    errors and calibration regard all of them.

    Raises UserError for columns that the data do not have, and for data that are others now.
    """
    from segsweep.analysis import numbers, slices
    from segsweep.analysis.matches import match

    if predicted.head["data"] != config.data.fingerprint():
        raise UserError(f"{predicted.path}: data={config.data.name} changed since the run")
    slices.values(config.data, columns)
    max_dets = getattr(config.metrics, "max_dets", 100)  # other metrics than COCO's set none
    matches = match(config.data, predicted, iou, max_dets)
    best = numbers.best_score(matches)
    if score is None:
        score = best.score if best else HALF
    missed = numbers.missed(matches, score, predicted.head["classes"])
    values = {
        "iou": iou,
        "score": score,
        "images": len(matches.images),
        "best": best._asdict() if best else None,
        "recall": numbers.recall_by_size(matches, score),
        "missed": {"count": len(missed), "first": [list(m) for m in missed[: numbers.SHOWN]]},
        "errors": matches.errors() if len(matches.objects) else None,
        "calibration": numbers.calibration(matches.scores, matches.right),
        "slices": slices.results(config, predicted, matches, score, columns),
    }
    return Analysis(values, missed)


def recorded(config: Config, predicted: PredictionFile | None) -> dict[str, Any] | None:
    """Return what the record of a run says about its predictions, None where it keeps none."""
    if predicted is None:
        return None
    return analyse(config, predicted, columns=config.data.slices).numbers


def threshold(directory: Path, config: Config, record: dict[str, Any]) -> tuple[float, str]:
    """Return the score from which objects of a run count wherever no other is wished for, and why.

    It is that of the best F1 on its validation images: of its record, else of its kept predictions;
    HALF where there is none. Verbs that draw or count objects all ask here, so they agree.
    """
    from segsweep.run.predictions import of_run

    analysis = record.get("analysis")
    reason = "nothing found on the validation images is right, so none could be chosen"
    try:
        analysis = analysis or analyse(config, of_run(directory)).numbers
    except UserError:
        reason = "no predictions of the validation images are kept to choose one by"
    if analysis and (best := analysis["best"]):
        return best["score"], BEST
    return HALF, reason


def evaluated(config: Config, predicted: PredictionFile) -> dict[str, float | None]:
    """Compute the run's metrics again from its predictions: the values of its record, exactly."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for image_id, instances in predicted:
        evaluator.add(image_id, instances)
    return evaluator.compute()

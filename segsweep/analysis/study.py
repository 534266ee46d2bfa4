"""The analysis of one run: all numbers that follow from its predictions and the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from segsweep.base.errors import UserError
from segsweep.task.base import kind

if TYPE_CHECKING:
    from pathlib import Path

    from segsweep.base.config import Config
    from segsweep.run.predictions import PredictionFile

IOU = 0.5
HALF = 0.5  # the score threshold where none was measured
BEST = "best F1 on its validation images"  # what a measured one is


class Listing(NamedTuple):
    """A list that is too long for a record: the names of its columns, and its rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Analysis:
    """The numbers, as records hold them, and lists by name."""

    numbers: dict[str, Any]
    lists: dict[str, Listing]


def analyse(
    config: Config,
    predicted: PredictionFile,
    *,
    columns: Sequence[str] = (),
    iou: float = IOU,
    score: float | None = None,
) -> Analysis:
    """Analyse the predictions of a run of this config; the file of its task here says what.

    Of objects, recall and missed ones hold at `score`, by default that of the best F1 of these
    predictions; errors and calibration regard all of them.

    Raises UserError for columns that the data do not have, for data that are others now, and where
    nothing that is found has a place.
    """
    from segsweep.analysis import slices

    refuse_unplaced(config, "analyse")
    if predicted.head["data"] != config.data.fingerprint():
        raise UserError(f"{predicted.path}: data={config.data.name} changed since the run")
    slices.values(config.data, columns)
    task = import_module(f"segsweep.analysis.{config.data.task}")
    return task.analysis(config, predicted, columns, iou, score)


def refuse_unplaced(config: Config, verb: str) -> None:
    """Raise UserError where what is found is said of a picture as a whole: nothing to match."""
    if not kind(config.data.task).placed:
        raise UserError(
            f"{verb}: data={config.data.name} has {kind(config.data.task).finds}, no objects and "
            "no regions to match; the record has the accuracy of each class, predictions.jsonl.gz "
            "the class of each picture"
        )


def recorded(config: Config, predicted: PredictionFile | None) -> dict[str, Any] | None:
    """Return what the record of a run says about its predictions, None where it keeps none."""
    if predicted is None or not kind(config.data.task).placed:
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
    if analysis and (best := analysis.get("best")):
        return best["score"], BEST
    return HALF, reason


def evaluated(config: Config, predicted: PredictionFile) -> dict[str, float | None]:
    """Compute the run's metrics again from its predictions: the values of its record, exactly."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for image_id, found in predicted:
        evaluator.add(image_id, found)
    return evaluator.compute()

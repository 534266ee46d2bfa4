"""The file of predictions of runs that have none, as their evaluation would have written it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import sha256
from segsweep.run.folder import known_hash
from segsweep.run.predictions import FILE
from segsweep.run.restore import finished, restore, same


def backfill(runs: list[Path], words: list[str], everything: bool) -> Iterator[str]:
    """Give runs their file; those that have it are left as they are. Yields what to tell of it.

    Raises UserError for a run that cannot have one, unless all runs are meant.
    """
    lacking = [run for run in runs if not (run / FILE).exists()]
    yield f"{len(runs)} runs: {len(runs) - len(lacking)} have predictions"
    for run in lacking:
        try:
            yield f"{run.name}: {predict_again(run, words)}"
        except UserError as error:
            if not everything:
                raise
            yield f"skipped {error}"


def predict_again(directory: Path, words: list[str]) -> str:
    """Write the file of predictions that training would have written; say what follows from it.

    Nothing else is written. Raises UserError where its model or its data are not what they were, or
    other bytes come out than its record names.
    """
    config, record = finished(directory, words)
    same(directory, config, record)  # before the model is built
    from segsweep.run.evaluate import evaluate

    restored = restore(directory, words=words)
    run = restored.run
    run.config.io.predictions = True
    with run.owning():
        evaluation = evaluate(run, restored.model, run.name)
        known = known_hash(record, FILE)
        if known is not None and evaluation.predictions and sha256(directory / FILE) != known:
            run.delete(FILE)
            raise UserError(
                f"{directory}: predicts other bytes here than on {record['device']['name']}, where "
                f"it was evaluated; copy {FILE} from there"
            )
    key = config.metrics.key
    value, recorded = evaluation.values[key], record["metrics"][key]["value"]
    return f"{key} {_text(value)}, recorded {_text(recorded)}"


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"

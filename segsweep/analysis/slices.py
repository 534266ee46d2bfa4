"""Results by slice: the images that share a value of a column of their annotation file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.explain import choices

if TYPE_CHECKING:
    from segsweep.analysis.matches import Matches
    from segsweep.base.config import Config
    from segsweep.data.base import DataSet
    from segsweep.run.predictions import Found

MOST = 50  # values of a column; more are no slices but a measurement
ABSENT = "(none)"


def check(config: Config) -> None:
    """Refuse slices that cannot be: reads the validation records, no image.

    Raises UserError for columns that are not there or that have too many values, and where no
    predictions are kept to compute them from.
    """
    from segsweep.task.base import kind

    if not config.data.slices:
        return
    kept = kind(config.data.task).kept
    if not (kept and config.io.predictions):
        why = "io.predictions=true" if kept else "instances, not label maps"
        raise UserError(f"data.slices={config.data.slices}: results by slice need {why}")
    values(config.data, config.data.slices)


def values(data: DataSet, columns: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return the value of each validation image, by column and image id; raises as `check`."""
    records = data.records("val")
    existing = sorted({column for record in records for column in record.meta})
    for column in columns:
        if column not in existing:
            raise UserError(
                f"data.slices: images of data={data.name} have no column {column!r}"
                + (choices(column, existing) or "; they have none at all")
            )
        different = {record.meta.get(column) for record in records}
        if len(different) > MOST:
            raise UserError(
                f"data.slices: {column!r} has {len(different)} values in data={data.name}; "
                f"slices need at most {MOST}"
            )
    return {c: {r.image_id: str(r.meta.get(c, ABSENT)) for r in records} for c in columns}


def results(
    config: Config,
    predicted: Iterable[tuple[int, Found]],
    matches: Matches,
    score: float,
    columns: Sequence[str],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return images, the run's own metric and recall of their objects, by column and value."""
    import numpy as np

    from segsweep.analysis.numbers import recall

    metric, places = config.metrics, values(config.data, columns)
    images: dict[tuple[str, str], int] = defaultdict(int)
    evaluators: dict[tuple[str, str], Any] = defaultdict(
        lambda: metric.evaluator(config.data, "val")
    )
    for image_id, instances in predicted:
        for column in columns:
            key = column, places[column][image_id]
            evaluators[key].add(image_id, instances)
            images[key] += 1
    table: dict[str, dict[str, dict[str, Any]]] = {column: {} for column in columns}
    for (column, value), evaluator in sorted(evaluators.items()):
        place = places[column]
        in_slice = [place[record.image_id] == value for record, _ in matches.objects]
        table[column][value] = {
            "images": images[column, value],
            metric.key: evaluator.compute()[metric.key],
            **recall(matches.finders[np.array(in_slice, bool)], score),
        }
    return table

"""Results by slice: the images that share a value of a column of their annotation file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.explain import choices

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.data.base import DataSet

MOST = 50  # values of a column; more are no slices but a measurement
ABSENT = "(none)"


def check(config: Config) -> None:
    """Refuse slices that cannot be: reads the validation records, no image.

    Raises UserError for columns that are not there or that have too many values, and where no
    predictions are kept to compute them from.
    """
    if not config.data.slices:
        return
    if not config.io.predictions:
        raise UserError(
            f"data.slices={config.data.slices}: results by slice need io.predictions=true"
        )
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
    predicted: Iterable[tuple[int, Any]],
    columns: Sequence[str],
    more: Callable[[set[int]], dict[str, Any]] = lambda images: {},
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return number of images and the run's own metric, by column and value.

    `more` says what else there is to tell of some images, by their ids.
    """
    metric, places = config.metrics, values(config.data, columns)
    images: dict[tuple[str, str], set[int]] = defaultdict(set)
    evaluators: dict[tuple[str, str], Any] = defaultdict(
        lambda: metric.evaluator(config.data, "val")
    )
    for image_id, found in predicted if columns else ():
        for column in columns:
            key = column, places[column][image_id]
            evaluators[key].add(image_id, found)
            images[key].add(image_id)
    table: dict[str, dict[str, dict[str, Any]]] = {column: {} for column in columns}
    for (column, value), evaluator in sorted(evaluators.items()):
        own = images[column, value]
        score = {metric.key: evaluator.compute()[metric.key]}
        table[column][value] = {"images": len(own), **score, **more(own)}
    return table

"""Means over data sets: which columns they count, and what their numbers are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segsweep.results.cells import AVERAGE, Cell, Column, Key, Table, mean, summary
from segsweep.results.pivot import Observation, column_fields
from segsweep.results.spec import Spec
from segsweep.results.trace import heading
from segsweep.results.wording import Values, first


def counted(spec: Spec, columns: list[Column], observed: list[Observation]) -> list[Column]:
    """Say which columns a mean is over: of each data set that which most rows have.

    Several are versions of it or measure it otherwise. Of equally many rows more runs count, then
    the newest of them.
    """
    rows: dict[Key, list[Key]] = defaultdict(list)
    ended: dict[Key, list[str]] = defaultdict(list)
    places = {o.column: _place(spec, o) for o in observed}
    for o in (o for o in observed if o.value is not None):
        rows[o.column].append(o.row)
        ended[o.column].append(str(o.run.values.get("ended") or ""))

    def use(column: Column) -> tuple[int, int, str]:
        own = rows[column.labels]
        return len({*own}), len(own), max(ended[column.labels], default="")

    chosen = {places[column.labels]: column for column in sorted(columns, key=use)}
    return [replace(c, counts=chosen[places[c.labels]] is c) for c in columns]


def _place(spec: Spec, o: Observation) -> Key:
    """Return the column of a number, whichever metric and version of a data set it is."""
    title = str(o.run.values.get("data.title", o.run.data_set))
    names = zip(column_fields(spec), o.column, strict=True)
    return tuple(
        spec.labels.get(title, title) if name == "data_set" else label
        for name, label in names
        if name != "metric"
    )


def one_direction(columns: Sequence[Column]) -> bool:
    """Say whether a mean means something: of errors and precisions together it does not."""
    return len({column.direction for column in columns}) == 1


def mean_column(spec: Spec, columns: list[Column]) -> Column:
    """Return the heading of the mean; a mean over different things says over which."""
    depth = len(columns[0].labels)
    kinds = tuple(dict.fromkeys(kind for column in columns for kind in column.kinds))
    metrics, protocols = (list(dict.fromkeys(k[i] for k in kinds if k[i])) for i in (0, 1))
    over = metrics if len(metrics) > 1 else protocols if len(protocols) > 1 else []
    label = f"{AVERAGE} of {' & '.join(over)}" if over else AVERAGE
    metric_first = column_fields(spec)[0] == "metric" and depth > 1
    top = columns[0].labels[0] if metric_first and len(metrics) < 2 else ""
    labels = (top, label, *[""] * (depth - 2)) if depth > 1 else (label,)
    return replace(columns[0], labels=labels, kinds=kinds, is_mean=True)


def average(cells: dict[Key, Cell]) -> Cell:
    """Return the mean over the columns, for rows without a gap."""
    if not cells or any(cell.value is None for cell in cells.values()):
        return Cell()
    samples = {(key, p): seeds for key, cell in cells.items() for p, seeds in cell.samples.items()}
    repeats = {(key, p): again for key, cell in cells.items() for p, again in cell.repeats.items()}
    _, sd, seeds = summary(samples)
    return Cell(
        value=mean(cell.value for cell in cells.values()),
        sd=sd,
        seeds=seeds,
        runs=tuple(run for cell in cells.values() for run in cell.runs),
        samples={"": _over_places(samples)},
        repeats={"": _over_places(repeats)},
    )


def _over_places(values: Mapping[Any, Mapping[Any, float]]) -> dict[Any, float]:
    """Return the means over places of what is in all of them."""
    everywhere = set.intersection(*map(set, values.values()))
    return {key: mean(at[key] for at in values.values()) or 0.0 for key in sorted(everywhere)}


def left_out(table: Table) -> str:
    """Say what versions a data set has, and which columns means leave out, or why there is none."""
    single = [column for column in table.columns if not column.is_mean]
    if table.spec.mean and not one_direction([column for column in single if column.counts]):
        return "No mean: of some of its columns more is better, of others less."
    left = [heading(column) for column in single if not column.counts]
    parts = "; ".join(_versions(table.runs))
    words = [f"Not the same data under one name: {parts}."] if parts else []
    if left and (table.spec.reference or table.spec.ranks or len(single) < len(table.columns)):
        words.append(
            "Of each data set one column counts, that which most rows have: in means and "
            f"comparisons over data sets not {first(left)}."
        )
    return " ".join(words)


def _versions(runs: list[Values]) -> list[str]:
    """Return the content of each version of a data set that has several."""
    versions: dict[str, list[Values]] = {}
    for run in runs:
        if "data.title" in run and run.get("data.fingerprint"):
            versions.setdefault(run["data_set"], []).append(run)
    return [
        f"{name} is content {several[0]['data.fingerprint'][:6]}, classes "
        f"{first(json.loads(several[0].get('data.classes') or '[]')) or 'unknown'}, "
        f"{len(several)} run{'s' if len(several) > 1 else ''}"
        for name, several in sorted(versions.items())
    ]

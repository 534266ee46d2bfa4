"""Tables: numbers that qualify, put in their places and summarised.

    frame --pivot.py--> observations --here--> [Table] --forms.py, typeset.py--> Markdown, ...
                                                       --panels.py, figures.py--> figures

A `Table` holds numbers only; every form of output is a function of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from segsweep.base.errors import UserError
from segsweep.metrics.learnt import learnt
from segsweep.results.averages import average, counted, mean_column, one_direction
from segsweep.results.cells import Cell, Column, Key, Row, Table, mean, summary
from segsweep.results.over_sets import beyond_these, holm, on_these, ranks
from segsweep.results.pivot import (
    ORIGINS,
    Observation,
    column_fields,
    observations,
    qualifying,
    row_fields,
    sorted_keys,
)
from segsweep.results.quantiles import LEVEL
from segsweep.results.remarks import remarks
from segsweep.results.settings import LabelledRun
from segsweep.results.spec import KEY, Spec, load
from segsweep.results.wording import QUANTITIES, Values, recorded_name


def ablation(records: list[Values], metric: str = KEY) -> list[Table]:
    """Return the automatic table: settings x data sets, one table per model.

    The metric is by default each run's own key metric.

    Raises UserError when runs are finished, but none has the metric.
    """
    if metric != KEY and not any(recorded_name(run, metric) for run in records):
        known = {key.split(".")[1] for run in records for key in run if key.startswith("metrics.")}
        if known:
            raise UserError(
                f"--metric {metric}: no run has it (choose from {', '.join(sorted(known))})"
            )
    return build(replace(load("ablation"), metric=metric), records)


def build(spec: Spec, runs: list[Values], origins: Sequence[str] = ORIGINS) -> list[Table]:
    """Return the tables of a specification, one for each value of `split`."""
    chosen = qualifying(spec, runs)
    present = [origin for origin in origins if any(run["origin"] == origin for run in chosen)]
    observed = observations(spec, chosen, present)
    titles: dict[Key, list[Observation]] = defaultdict(list)
    for observation in observed:
        titles[observation.title].append(observation)
    order = sorted_keys(spec, spec.split, ((o.title, o) for o in observed))
    tables = [_table(spec, ", ".join(title), titles[title], present) for title in order]
    return [
        replace(table, notes=remarks(table, titles[title], "ours" in origins))
        for title, table in zip(order, tables, strict=True)
        if table.rows
    ]


def _table(spec: Spec, title: str, observed: list[Observation], present: Sequence[str]) -> Table:
    columns = counted(spec, _columns(spec, observed), observed)
    single = [column for column in columns if column.counts]
    fields = row_fields(spec, present)
    shown = [o for o in observed if o.run.values["origin"] in present]
    cells: dict[Key, dict[Key, list[Observation]]] = defaultdict(lambda: defaultdict(list))
    for observation in shown:
        cells[observation.row][observation.column].append(observation)
    keyed = [*((o.row, o) for o in shown), *_to_fill(fields, observed, shown)]
    keys = sorted_keys(spec, fields, keyed)
    examples = dict(reversed(keyed))
    rows = [_row(spec, key, columns, cells[key], examples[key].run) for key in keys]
    if spec.reference:
        rows = _compared(spec, rows, single)
    if spec.ranks:
        rows = _with_ranks(rows, single)
    if spec.mean and len(single) > 1 and one_direction(single):
        columns = [*columns, mean_column(spec, single)]
    runs = list({o.run.values["id"]: o.run.values for o in shown}.values())
    return Table(spec, title, fields, columns, rows, runs, [])


def _to_fill(
    fields: Sequence[str], observed: list[Observation], shown: list[Observation]
) -> list[tuple[Key, Observation]]:
    """Return the rows that are published and that ours, if there are any here, are to fill."""
    if not any(o.run.values["origin"] == "ours" for o in shown):
        return []
    at = fields.index("origin") if "origin" in fields else len(fields)
    published = [o for o in observed if o.run.values["origin"] == "reported"]
    return [((*o.row[:at], *["ours"] * (at < len(fields)), *o.row[at + 1 :]), o) for o in published]


def _columns(spec: Spec, observed: list[Observation]) -> list[Column]:
    inside: dict[Key, list[Observation]] = defaultdict(list)
    for observation in observed:
        inside[observation.column].append(observation)
    keys = sorted_keys(spec, column_fields(spec), ((o.column, o) for o in observed))
    return [_column(key, inside[key]) for key in keys]


def _column(labels: Key, observed: list[Observation]) -> Column:
    metric = observed[0].metric
    direction = _recorded_of_metric(observed, "direction") or "higher"
    unit = _recorded_of_metric(observed, "unit")
    if quantity := QUANTITIES.get(metric):
        direction, unit = quantity.direction, quantity.unit
    kinds = {(o.metric, o.protocol): None for o in observed if o.value is not None}
    return Column(labels, metric, unit, direction, tuple(kinds))


def _recorded_of_metric(observed: list[Observation], field: str) -> str:
    """Return what the first record that says something says about its metric."""
    values = (o.run.values.get(f"metrics.{o.name}.{field}") for o in observed)
    return next((str(value) for value in values if value), "")


def _row(
    spec: Spec,
    key: Key,
    columns: list[Column],
    by_column: dict[Key, list[Observation]],
    run: LabelledRun,
) -> Row:
    cells = {column.labels: _cell(by_column.get(column.labels, [])) for column in columns}
    origin = "ours" if not by_column else run.values["origin"]  # a row that ours are to fill
    facts = {}
    for name in spec.facts:
        value = mean(mean(o.run.values.get(name) for o in group) for group in by_column.values())
        facts[name] = None if value is None else value * QUANTITIES[name].factor
    single = [column for column in columns if column.counts]
    averaged = average({c.labels: cells[c.labels] for c in single} if one_direction(single) else {})
    averaged = replace(averaged, trained=mean(cell.trained for cell in cells.values()))
    return Row(key, origin, run, cells, averaged, facts)


def _cell(observed: list[Observation]) -> Cell:
    done = [o for o in observed if o.value is not None]
    runs = tuple(o.run.values for o in done)
    seeds = [run.get("config.seed", 0) for run in runs]
    repeats = [(seed, run.get("config.repeat", 0)) for seed, run in zip(seeds, runs, strict=True)]
    samples = _means(done, seeds)
    value, sd, number = summary(samples)
    if len(done) == 1 and runs[0]["origin"] == "reported":
        sd, number = runs[0].get(f"metrics.{done[0].name}.sd"), 0
    return Cell(
        value=value,
        sd=sd,
        seeds=number,
        failed=sum(o.run.values["status"] == "failed" for o in observed),
        trained=mean(o.run.values.get("params.trainable") for o in observed),
        runs=runs,
        samples=samples,
        repeats=_means(done, repeats),
    )


def _means(observed: list[Observation], keys: Sequence[Any]) -> dict[Any, dict[Any, float]]:
    """Return the means of the values that share data set and key, by both."""
    groups: dict[Any, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for o, key in zip(observed, keys, strict=True):
        groups[o.run.data_set][key].append(o.value or 0.0)
    return {p: {k: mean(v) or 0.0 for k, v in by.items()} for p, by in groups.items()}


def _compared(spec: Spec, rows: list[Row], columns: list[Column]) -> list[Row]:
    """Compare every row with the reference that shares its other labels: delta and paired tests.

    Of several rows of the reference method the one of the best mean is the reference, if it is
    stable.
    """
    at = spec.rows.index("setting") if "setting" in spec.rows else -1

    def others(row: Row) -> tuple:
        return (row.origin, *(label for i, label in enumerate(row.labels) if i != at))

    judged = Table(spec, "", [], columns, rows, [], [])
    unstable = {key for column in columns for key in judged.unstable(column)}

    def rank(row: Row) -> tuple[bool, float]:
        return row.labels not in unstable, row.average.value or 0.0

    references: dict[tuple, Row] = {}
    for row in (row for row in rows if row.method == spec.reference):
        references[others(row)] = max(references.get(others(row), row), row, key=rank)
    compared = [_against(row, references.get(others(row)), columns) for row in rows]
    for origin in ORIGINS:
        for test in ("here", "beyond"):
            compared = _corrected(compared, origin, test)
    return compared


def _against(row: Row, base: Row | None, columns: list[Column]) -> Row:
    """Compare a row with its reference row."""
    if base is None or base is row:
        return row
    pairs = _differences(row, base, columns)
    here, there = row.average.value, base.average.value
    # where less is better a low number is a good one
    rising = "higher" if all(column.sign > 0 for column in columns) else "lower"
    delta = None  # to what has learnt nothing
    if here is not None and there and learnt(there, "%", rising):
        delta = 100 * (here - there) / there  # equation 11
    return replace(
        row,
        reference=base.labels,
        delta=delta,
        here=on_these(pairs) if pairs else None,
        beyond=beyond_these(pairs) if pairs else None,
    )


def _corrected(rows: list[Row], origin: str, test: str) -> list[Row]:
    """Say of which rows p stays below 0.05 after Holm's correction for all rows of an origin."""
    tested = [row for row in rows if row.origin == origin and getattr(row, test)]
    adjusted = holm([getattr(row, test).p for row in tested])
    remains = {row.labels: p <= LEVEL for row, p in zip(tested, adjusted, strict=True)}
    return [
        replace(row, **{f"{test}_remains": remains[row.labels]}) if row.labels in remains else row
        for row in rows
    ]


def _differences(row: Row, base: Row, columns: list[Column]) -> dict[str, list[float]]:
    """Return row minus reference by data set, for every seed that both have; more is better."""
    differences: dict[str, list[float]] = defaultdict(list)
    for column in columns:
        values, others = row.cells[column.labels].samples, base.cells[column.labels].samples
        for place in sorted(values.keys() & others.keys()):
            for seed in sorted(values[place].keys() & others[place].keys()):
                gained = column.sign * (values[place][seed] - others[place][seed])
                differences[place].append(gained)
    return dict(differences)


def _with_ranks(rows: list[Row], columns: list[Column]) -> list[Row]:
    """Give our rows their ranks over the data sets."""
    gains = {
        row.labels: {
            (column.labels, place): [column.sign * value for value in seeds.values()]
            for column in columns
            for place, seeds in row.cells[column.labels].samples.items()
        }
        for row in rows
        if row.origin == "ours"
    }
    found = ranks(gains)
    return [replace(row, rank=found.get(row.labels)) for row in rows]

"""The evidence of one column of a table: what its runs say about differences between its rows."""

from __future__ import annotations

from statistics import fmean

from segsweep.results.cells import Cell, Column, Key, Table
from segsweep.results.evidence import Evidence


def evidence(table: Table, column: Column, origin: str = "ours") -> Evidence[Key]:
    """Return the gain of every seed by row, of ours or of published ones; more is better."""
    rows = [row for row in table.rows if row.origin == origin]
    sign = -1 if column.direction == "lower" else 1
    cells = {row.labels: table.cell(row, column) for row in rows}
    runs = {key: [sign * value for value in by_seed(c).values()] for key, c in cells.items()}
    return Evidence(runs, table.spec.noise)


def by_seed(cell: Cell) -> dict[int, float]:
    """Return the value of every seed that all of a cell's data sets have: their mean."""
    places = list(cell.samples.values())
    shared = set.intersection(*map(set, places)) if places else set()
    return {seed: fmean(values[seed] for values in places) for seed in sorted(shared)}

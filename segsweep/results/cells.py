"""The numbers of a table: cells, columns, rows. They know nothing of how they are printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from segsweep.results.evidence import ENOUGH, deviation, pooled, within_noise
from segsweep.results.over_sets import Test
from segsweep.results.settings import LabelledRun
from segsweep.results.spec import Spec
from segsweep.results.wording import Values

MISSING, FAILED = "—", "failed"
AVERAGE = "mean"

Key = tuple[str, ...]
"""The labels of a row or of a column, one for each of its fields."""

Samples = Mapping[Any, Mapping[Any, float]]
"""Values by place (a data set, a column) and by seed; repeats of a seed are one value."""

Repeats = Mapping[Any, Mapping[tuple[Any, int], float]]
"""Values by place and by (seed, repeat): every run is a value."""


@dataclass(frozen=True)
class Cell:
    """One number of a table, and the runs it follows from. `sd` needs at least two seeds.

    Published numbers have `seeds=0` where nobody says of how many they are the mean.
    """

    value: float | None = None
    sd: float | None = None
    seeds: int = 0
    failed: int = 0
    trained: float | None = None  # parameters
    runs: tuple[Values, ...] = ()
    samples: Samples = field(default_factory=dict)
    repeats: Repeats = field(default_factory=dict)

    def rounded(self, decimals: int = 2) -> str | None:
        """Return the value as it is printed; values that print alike are equally good."""
        return None if self.value is None else f"{self.value:.{decimals}f}"

    def text(self, decimals: int = 2) -> str:
        """Return what a reader sees: "42.31", "42.31 ± 0.40 (3)", "failed" or a dash."""
        if self.value is None:
            return FAILED if self.failed else MISSING
        spread = "" if self.sd is None else f" ± {self.sd:.{max(decimals, 2)}f}"
        return f"{self.rounded(decimals)}{spread}" + (f" ({self.seeds})" if self.seeds > 1 else "")


@dataclass(frozen=True)
class Column:
    """What stands over a column, top-down, and what its numbers are."""

    labels: Key
    metric: str
    unit: str = ""
    direction: str = "higher"  # or "lower", or nothing where no value is better than another
    kinds: tuple[tuple[str, str], ...] = ()  # (metric, protocol) of its numbers
    is_mean: bool = False

    def best(self, values: Iterable[float | None]) -> float | None:
        """Return the best of some values, None where there is none or no contest."""
        known = [value for value in values if value is not None]
        if not known or not self.direction:
            return None
        return max(known) if self.direction == "higher" else min(known)


@dataclass(frozen=True)
class Row:
    """One line: its labels, its cells by the labels of their columns, and their mean.

    `run` is one of its runs; `delta` is equation 11 in percent, `test` compares with the reference
    row, `remains` says whether p stays below 0.05 after Holm's correction for all rows.
    """

    labels: Key
    origin: str  # whose numbers these are: "ours" or "reported"
    run: LabelledRun
    cells: dict[Key, Cell]
    average: Cell
    facts: dict[str, float | None]
    delta: float | None = None
    test: Test | None = None
    remains: bool = False

    @property
    def method(self) -> str:
        """The word of its method."""
        return self.run.method

    @property
    def setting(self) -> str:
        """The method with its options."""
        return self.run.setting


@dataclass(frozen=True)
class Table:
    """All rows of one value of `split` (a model); `columns` ends with the mean, if there is one."""

    spec: Spec
    title: str
    fields: list[str]  # what the labels of a row are
    columns: list[Column]
    rows: list[Row]
    runs: list[Values]
    notes: list[str]

    def cell(self, row: Row, column: Column) -> Cell:
        """Return the cell of a row and a column."""
        return row.average if column.is_mean else row.cells[column.labels]

    def decimals(self, column: Column) -> int:
        """Return how many decimals a column is printed with."""
        return self.spec.digits.get(column.metric, self.spec.decimals)

    def best(self, column: Column, origin: str) -> str | None:
        """Return the best value of a column as it is printed, of ours or of published ones."""
        cells = (self.cell(row, column) for row in self.rows if row.origin == origin)
        top = column.best(cell.value for cell in cells)
        return Cell(top).rounded(self.decimals(column))

    def noise(self, column: Column, origin: str) -> float | None:
        """Return the standard deviation over seeds that holds for a column.

        It is pooled over the column's cells, else over the table's, else what the table's `noise`
        says; None where nothing tells it.
        """
        rows = [row for row in self.rows if row.origin == origin]
        sd = pooled(list(s.values()) for r in rows for s in self.cell(r, column).samples.values())
        if sd is None and not column.is_mean:
            cells = [cell for row in rows for cell in row.cells.values()]
            sd = pooled(list(seeds.values()) for c in cells for seeds in c.samples.values())
        return self.spec.noise if sd is None else sd

    def floor(self, column: Column) -> tuple[float, int] | None:
        """Return the noise floor of a column and the number of runs that tell it, if any do.

        It is the standard deviation of runs of the same seed, pooled over the column's cells.
        """
        seeds: dict[tuple, list[float]] = defaultdict(list)
        for row in self.rows:
            for place, values in self.cell(row, column).repeats.items():
                for (seed, _), value in values.items():
                    seeds[row.labels, place, seed].append(value)
        groups = [group for group in seeds.values() if len(group) > 1]
        sd = pooled(groups)
        if sd is None:
            return None
        differ = any(len(set(group)) > 1 for group in groups)  # by more than rounding
        return sd if differ else 0.0, sum(map(len, groups))

    def ties(self, column: Column) -> set[Key]:
        """Return the rows whose value differs from the best by no more than the noise."""
        tied: set[Key] = set()
        for origin in ("ours", "reported"):
            rows = [row for row in self.rows if row.origin == origin]
            cells = {row.labels: self.cell(row, column) for row in rows}
            top, bold = column.best(c.value for c in cells.values()), self.best(column, origin)
            if top is None:
                continue
            noise = self.noise(column, origin)
            best = next(_spread(cell, noise) for cell in cells.values() if cell.value == top)
            for key, cell in cells.items():
                here = _spread(cell, noise)
                if cell.value is None or cell.rounded(self.decimals(column)) == bold:
                    continue  # nothing, or printed alike, so bold itself
                if here and best and within_noise(top - cell.value, here, best):
                    tied.add(key)
        return tied


def _spread(cell: Cell, noise: float | None) -> tuple[float, int] | None:
    """Return standard deviation and seeds of a cell: its own from three seeds on, or printed."""
    enough = cell.sd is not None and (cell.seeds >= ENOUGH or cell.seeds == 0)
    sd = cell.sd if enough else noise
    return None if sd is None else (sd, cell.seeds)


def summary(samples: Samples) -> tuple[float | None, float | None, int]:
    """Return mean, standard deviation and seeds: mean over places of the means over seeds.

    The spread over several places is that of the seeds' own means, if every seed is in all.
    """
    means = [fmean(seeds.values()) for seeds in samples.values() if seeds]
    if not means:
        return None, None, 0
    everywhere = set.intersection(*(set(seeds) for seeds in samples.values()))
    anywhere = set.union(*(set(seeds) for seeds in samples.values()))
    paired = len(everywhere) == len(anywhere) > 1
    if not paired and len(samples) == 1:
        paired = len(anywhere) > 1
    by_seed = [fmean(seeds[seed] for seeds in samples.values()) for seed in everywhere]
    return fmean(means), deviation(by_seed) if paired else None, len(by_seed) if paired else 1


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is there, None of nothing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

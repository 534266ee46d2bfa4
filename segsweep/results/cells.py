"""The numbers of a table: cells, columns, rows. They know nothing of how they are printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from segsweep.metrics.learnt import learnt
from segsweep.results.evidence import Difference, Evidence, alike_as_printed, deviation, pooled
from segsweep.results.over_sets import Rank, Test
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

    def printed_sd(self) -> float | None:
        """Return the spread that a document prints without saying of how many runs it is."""
        return None if self.seeds else self.sd

    def text(self, decimals: int = 2) -> str:
        """Return what a reader sees: "42.31", "42.31 ± 0.40 (3)", "failed" or a dash."""
        if self.value is None:
            return FAILED if self.failed else MISSING
        spread = "" if self.sd is None else f" ± {self.sd:.{max(decimals, 2)}f}"
        return f"{self.rounded(decimals)}{spread}" + (f" ({self.seeds})" if self.seeds > 1 else "")


@dataclass(frozen=True)
class Column:
    """What stands over a column, top-down, and what its numbers are.

    A mean counts one column of each data set: not several versions of it, nor several metrics.
    """

    labels: Key
    metric: str
    unit: str = ""
    direction: str = "higher"  # or "lower", or nothing where no value is better than another
    kinds: tuple[tuple[str, str], ...] = ()  # (metric, protocol) of its numbers
    is_mean: bool = False
    counts: bool = True  # in a mean

    @property
    def sign(self) -> int:
        """What turns a value into a gain: more is better."""
        return -1 if self.direction == "lower" else 1


@dataclass(frozen=True)
class Row:
    """One line: its labels, its cells by the labels of their columns, and their mean.

    `run` is one of its runs. Where there is a reference row: `reference` are its labels, `delta` is
    equation 11 in percent, `here` and `beyond` test the difference on these data sets and beyond
    them, `here_remains` and `beyond_remains` say whether p is below 0.05 after Holm's correction.
    """

    labels: Key
    origin: str  # whose numbers these are: "ours" or "reported"
    run: LabelledRun
    cells: dict[Key, Cell]
    average: Cell
    facts: dict[str, float | None]
    reference: Key | None = None
    delta: float | None = None
    here: Test | None = None
    here_remains: bool = False
    beyond: Test | None = None
    beyond_remains: bool = False
    rank: Rank | None = None

    @property
    def method(self) -> str:
        """The word of its method."""
        return self.run.method

    @property
    def setting(self) -> str:
        """The method with its options."""
        return self.run.setting

    def rising(self) -> bool:
        """Say whether most of its runs were best at their last validation: still rising.

        A single validation is always the best and tells nothing.
        """
        runs = [run for cell in self.cells.values() for run in cell.runs if run.get("best.epoch")]
        runs = [run for run in runs if run["config.hparams.epochs"] > _every(run)]
        last = [run["best.epoch"] > run["config.hparams.epochs"] - _every(run) for run in runs]
        return sum(last) > len(last) / 2


def _every(run: Values) -> int:
    return run.get("config.trainer.validate_every") or 1


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

    def contests(self, column: Column) -> list[Evidence[Key]]:
        """Return the evidence of a column: rows that may be compared, by their gains.

        Those are of one origin, one model and one data set, and one at least has learnt something:
        else nothing is compared. Of the mean over data sets only its spread is of use: it mixes
        scales, and is never tested.
        """
        return self._contests[column.labels]

    def evidence(self, column: Column, origin: str) -> Evidence[Key]:
        """Return the evidence of the most rows of a column, of ours or of published ones."""
        here = {row.labels for row in self.rows if row.origin == origin}
        contests = [contest for contest in self.contests(column) if here & contest.means.keys()]
        return max(contests, key=lambda contest: len(contest.means), default=Evidence({}))

    @cached_property
    def _contests(self) -> dict[Key, list[Evidence[Key]]]:
        return {column.labels: self._evidence(column) for column in self.columns}

    def _evidence(self, column: Column) -> list[Evidence[Key]]:
        groups: dict[tuple, dict[Key, list[float]]] = defaultdict(dict)
        for row in self.rows:
            cell = self.cell(row, column)
            if cell.value is None:
                continue
            models = frozenset(run.get("model") for run in cell.runs)
            single = len(cell.samples) == 1  # what is a mean over data sets is one number
            seeds = next(iter(cell.samples.values())) if single else {0: cell.value}
            gains = [column.sign * seeds[seed] for seed in sorted(seeds)]
            groups[row.origin, models, frozenset(cell.samples)][row.labels] = gains
        contests = [Evidence(rows, self.spec.noise) for rows in groups.values()]
        unit, direction = column.unit, column.direction
        return [c for c in contests if learnt(max(c.means.values(), default=0.0), unit, direction)]

    def bold(self, column: Column) -> set[Key]:
        """Return the best rows of a column: those whose number is printed like the highest.

        One row alone is no contest, nor is a number that is neither better nor worse.
        """
        best: set[Key] = set()
        for contest in self.contests(column) if column.direction else ():
            if len(contest.means) > 1:
                top = max(contest.means, key=contest.means.__getitem__)
                cells = {row.labels: self.cell(row, column) for row in self.rows}
                printed = cells[top].rounded(self.decimals(column))
                same = (
                    k for k in contest.means if cells[k].rounded(self.decimals(column)) == printed
                )
                best.update(same)
        return best

    def ties(self, column: Column) -> set[Key]:
        """Return the rows that may be the best, too, as far as their runs can tell."""
        if not column.direction or column.is_mean:
            return set()
        tied = {key for contest in self.contests(column) for key in contest.among_best()}
        return (tied | self._printed_ties(column)) - self.bold(column)

    def _printed_ties(self, column: Column) -> set[Key]:
        """Return the rows within the spreads that a document prints, without saying of how many."""
        cells = {row.labels: self.cell(row, column) for row in self.rows}
        return {
            key
            for contest in self.contests(column)
            for top in [max(contest.means, key=contest.means.__getitem__)]
            for key in contest.means
            if alike_as_printed(
                contest.means[top] - contest.means[key],
                *(cells[k].printed_sd() for k in (top, key)),
            )
        }

    def unstable(self, column: Column) -> dict[Key, int]:
        """Return the rows whose runs vary far more than the others', with their oddest seed."""
        seeds = {row.labels: self.cell(row, column).samples for row in self.rows}
        return {
            key: sorted(next(iter(seeds[key].values())))[place]
            for contest in self.contests(column)
            for key, place in contest.unstable.items()
        }

    def against(self, column: Column) -> dict[Key, Difference]:
        """Return how far rows are from their reference row, in the units and signs of the column.

        Only where noise is known, and not of the mean over data sets.
        """
        if column.is_mean or not column.direction:
            return {}
        intervals: dict[Key, Difference] = {}
        for row in self.rows:
            for contest in self.contests(column) if row.reference else ():
                assert row.reference is not None
                interval = contest.against(row.reference).get(row.labels)
                if interval is not None:
                    intervals[row.labels] = interval if column.sign > 0 else interval.turned()
        return intervals

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

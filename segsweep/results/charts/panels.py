"""What charts of settings show: delta to the full head, costs, and what nothing beats.

delta_m = (AP_m - AP_fullhead) / AP_fullhead, equation 11 of the study of adapters and LoRA for
Mask DINO and SEEM, here in percent. Without a full-head run a panel holds AP itself and says so.
What noise allows to say is said per data set (evidence.py); a mean over data sets is never tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from segsweep.metrics.learnt import FLOOR, learnt
from segsweep.results.cells import Cell, Column, Key, Row, Table, mean
from segsweep.results.evidence import Evidence
from segsweep.results.wording import QUANTITIES, metric_name

REPEATS = "standard deviation of same-seed repeats"
SEEDS = "pooled standard deviation over seeds"
GIVEN = "standard deviation over seeds that the table states"


@dataclass(frozen=True)
class PlotPoint:
    """One setting in one panel: what it trains or costs, the value drawn and its bar.

    The bar reaches equally far up and down; 0 is none.
    """

    row: Row
    x: float
    value: float
    bar: float
    unstable: bool = False

    def label(self) -> tuple[str, str]:
        """Return what grows along a line ("I=1") and what its points agree on ("κ+λ")."""
        size, *rest = self.row.run.details or ("",)
        return size, ", ".join(rest)


@dataclass(frozen=True)
class Band:
    """The noise as drawn, a standard deviation, and what tells it."""

    sd: float
    source: str


@dataclass(frozen=True)
class Front:
    """What nothing of equal or lower cost beats, cheapest first; and what may belong to it.

    `near` are points that the data cannot tell from the front's best of equal or lower cost;
    `reaches` says for each step how far below it such points lie. Both are empty where nothing is
    known of noise.
    """

    best: list[PlotPoint]
    near: list[PlotPoint] = field(default_factory=list)
    reaches: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """One data set, or their mean, of one model; values are relative to the reference row's."""

    table: Table
    column: Column
    reference: Row | None

    @cached_property
    def evidence(self) -> Evidence[Key]:
        """What the runs of the column say about differences."""
        return self.table.evidence(self.column, self.table.rows[0].origin)

    @cached_property
    def unstable(self) -> set[Key]:
        """The rows that vary far more than the others; of a mean those that do so anywhere."""
        if not self.column.is_mean:
            return set(self.evidence.unstable)
        others = (Panel(self.table, c, None) for c in self.table.columns if not c.is_mean)
        return {key for panel in others for key in panel.unstable}

    @property
    def tested(self) -> bool:
        """Whether differences are judged here: on one data set, where noise is known."""
        return not self.column.is_mean and self.evidence.known

    @property
    def relative(self) -> bool:
        """Whether bars are intervals of the difference to the reference."""
        return self.tested and self.reference is not None

    @cached_property
    def _base(self) -> float:
        """The value of the reference."""
        cell = self.table.cell(self.reference, self.column) if self.reference else Cell()
        return cell.value or 0.0

    @property
    def _scale(self) -> float:
        """What turns differences into those that are drawn."""
        return 1.0 if self.reference is None else 100 / self._base

    def drawn(self, cell: Cell) -> tuple[float, float] | None:
        """Return value and spread of a cell as drawn: delta in percent, or the value itself."""
        if cell.value is None:
            return None
        return self._scale * (cell.value - self._base), self._scale * (cell.sd or 0.0)

    def points(self, trained: bool = True) -> list[PlotPoint]:
        """Return the settings that train something, or those that do not (the frozen base).

        Bars are two-sided intervals against the reference, all of which hold in 95 % of all
        panels; where differences are not tested, or there is no reference, the spread over seeds.
        Unstable settings have none.
        """
        points, reaches = [], self._reaches() if self.relative else None
        for row in self.table.rows:
            cell = self.table.cell(row, self.column)
            drawn = self.drawn(cell)
            if drawn and cell.trained is not None and bool(cell.trained) == trained:
                odd = row.labels in self.unstable
                bar = drawn[1] if reaches is None else reaches.get(row.labels, 0.0)
                points.append(PlotPoint(row, cell.trained, drawn[0], 0.0 if odd else bar, odd))
        return points

    def _reaches(self) -> dict[Key, float]:
        """Return how far each difference to the reference may be off, as drawn."""
        assert self.reference is not None
        intervals = self.evidence.against(self.reference.labels)
        return {key: self._scale * (i.high - i.middle) for key, i in intervals.items()}

    def priced(self, cost: str) -> list[PlotPoint]:
        """Return the settings whose cost is recorded and above zero, with the metric itself.

        Their bars are the spread over seeds.
        """
        return [point for point in self._costed(cost) if point.x]

    def free(self, cost: str) -> list[PlotPoint]:
        """Return the settings that cost nothing, as the frozen base does: no point of an axis."""
        return [point for point in self._costed(cost) if not point.x]

    def _costed(self, cost: str) -> list[PlotPoint]:
        points = []
        for row in self.table.rows:
            cell = self.table.cell(row, self.column)
            price = mean(run.get(cost) for run in cell.runs)
            if cell.value is not None and price is not None:
                price *= QUANTITIES[cost].factor
                odd = row.labels in self.unstable
                points.append(PlotPoint(row, price, cell.value, cell.sd or 0.0, odd))
        return points

    def front(self, points: Sequence[PlotPoint]) -> Front:
        """Return the Pareto front of the stable points, and what cannot be told from it.

        Where nothing was learnt there is none: differences mean nothing.
        """
        stable = [point for point in points if not point.unstable]
        if self.unlearnt(points):
            return Front([])
        best = front(stable, higher=self.column.sign > 0)
        if not self.tested:
            return Front(best)
        near, reaches = [], []
        for step, after in zip(best, [*(b.x for b in best[1:]), inf], strict=True):
            beaten = [p for p in stable if step.x <= p.x < after and p is not step]
            others = beaten or [p for p in stable if p is not step]
            far = [self.evidence.reach(step.row.labels, p.row.labels) for p in others]
            near += [p for p, r in zip(beaten, far, strict=False) if abs(step.value - p.value) <= r]
            reaches.append(max(far, default=0.0))
        return Front(best, near, reaches)

    def unlearnt(self, points: Sequence[PlotPoint]) -> str:
        """Say so where none of some points with the metric itself has learnt anything."""
        unit, direction = self.column.unit, self.column.direction
        known = any(learnt(point.value, unit, direction) for point in points)
        return "" if known else f"nothing was learnt ({self.metric} below {FLOOR:g}): no front"

    def noise(self) -> Band | None:
        """Return the noise as drawn: of same-seed repeats where there are any, else over seeds."""
        if floor := self.table.floor(self.column):
            return Band(self._scale * floor[0], REPEATS)
        noise = self.evidence.noise
        if noise is None:
            return None
        return Band(self._scale * noise.sd, GIVEN if noise.freedom == inf else SEEDS)

    @property
    def metric(self) -> str:
        """The metric's short name; masks go without saying."""
        return metric_name(self.column.metric)

    @property
    def unit(self) -> str:
        """The unit of the values as drawn."""
        return "%" if self.reference is not None else self.column.unit

    def title(self) -> str:
        """Return the data set, or of how many this is the mean."""
        columns, name = self.table.columns, self.column.labels[-1]
        if not self.column.is_mean:
            alone = sum(column.labels[-1] == name for column in columns) == 1
            return name if alone else f"{name}, {self.column.labels[0]}"
        counted = sum(column.counts and not column.is_mean for column in columns)
        protocols = dict.fromkeys(protocol for _, protocol in self.column.kinds if protocol)
        mixed = f" ({' & '.join(protocols)})" if len(protocols) > 1 else ""
        return f"mean of {counted} data sets{mixed}"

    def quantity(self) -> str:
        """Return what the vertical axis shows."""
        words = self.metric if self.reference is None else f"δ {self.metric} to the full head"
        return f"{words} ({self.unit})"

    def plain_quantity(self) -> str:
        """Return the metric itself with its unit, if it has one."""
        return f"{self.metric} ({self.column.unit})" if self.column.unit else self.metric

    def remark(self) -> str:
        """Return why this is not delta, or why nothing is compared, or nothing."""
        if self.reference is None:
            zero = learnt(0.0, self.column.unit, self.column.direction)
            least = "> 0" if zero else f"≥ {FLOOR:g}"
            missing = "mean" if self.column.is_mean else f"run with {self.metric} {least}"
            return f"no full-head {missing}: {self.metric} itself, not δ"
        if self.relative and self.reference.labels in self.unstable:
            return "the full head is unstable: nothing is compared with it"
        return ""


def panels(table: Table) -> list[Panel]:
    """Return the panels of a model: the mean over its data sets first, then each of them."""
    columns = sorted(table.columns, key=lambda column: not column.is_mean)
    return [Panel(table, column, _reference(Panel(table, column, None))) for column in columns]


def _reference(panel: Panel) -> Row | None:
    """Return the reference row of a column; of several a stable one, and of these the best."""
    column = panel.column
    rows = [(panel.table.cell(row, column).value, row) for row in panel.table.rows]
    known = [
        (row.labels not in panel.unstable, column.sign * value, row)
        for value, row in rows
        if value and row.run.reference and learnt(value, column.unit, column.direction)
    ]
    return max(known, key=lambda entry: entry[:2])[2] if known else None


def front(points: Sequence[PlotPoint], higher: bool = True) -> list[PlotPoint]:
    """Return the points that none of equal or lower cost beats, cheapest first."""
    sign = 1 if higher else -1
    best: list[PlotPoint] = []
    for point in sorted(points, key=lambda p: (p.x, -sign * p.value)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best

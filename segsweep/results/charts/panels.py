"""The numbers of the figures: delta AP to the full head, costs, and what nothing beats.

delta_m = (AP_m - AP_fullhead) / AP_fullhead, equation 11 of the study of adapters and LoRA for
Mask DINO and SEEM, here in percent. Without a full-head run a panel holds AP itself and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segsweep.results.cells import Cell, Column, Row, Table, mean
from segsweep.results.wording import QUANTITIES, metric_name


@dataclass(frozen=True)
class PlotPoint:
    """One setting in one panel: what it trains or costs, the value drawn and its spread."""

    row: Row
    x: float
    value: float
    sd: float

    def label(self) -> tuple[str, str]:
        """Return what grows along a line ("I=1") and what its points agree on ("κ+λ")."""
        size, *rest = self.row.run.details or ("",)
        return size, ", ".join(rest)


@dataclass(frozen=True)
class Noise:
    """A standard deviation, and whether runs of the same seed tell it rather than seeds."""

    sd: float
    repeats: bool


@dataclass(frozen=True)
class Panel:
    """One data set, or their mean, of one model; values are relative to the full head's."""

    table: Table
    column: Column
    reference: float | None

    def drawn(self, cell: Cell) -> tuple[float, float] | None:
        """Return value and spread of a cell as drawn: delta in percent, or the value itself."""
        if cell.value is None:
            return None
        if self.reference is None:
            return cell.value, cell.sd or 0.0
        scale = 100 / self.reference
        return scale * (cell.value - self.reference), scale * (cell.sd or 0.0)

    def points(self, trained: bool = True) -> list[PlotPoint]:
        """Return the settings that train something, or those that do not (the frozen base)."""
        points = []
        for row in self.table.rows:
            cell = self.table.cell(row, self.column)
            drawn = self.drawn(cell)
            if drawn and cell.trained is not None and bool(cell.trained) == trained:
                points.append(PlotPoint(row, cell.trained, *drawn))
        return points

    def priced(self, cost: str) -> list[PlotPoint]:
        """Return the settings whose cost is recorded and above zero, with the metric itself."""
        points = []
        for row in self.table.rows:
            cell = self.table.cell(row, self.column)
            price = mean(run.get(cost) for run in cell.runs)
            if cell.value is not None and price:
                price *= QUANTITIES[cost].factor
                points.append(PlotPoint(row, price, cell.value, cell.sd or 0.0))
        return points

    def noise(self) -> Noise | None:
        """Return the noise as drawn: of same-seed repeats where there are any, else over seeds."""
        floor = self.table.floor(self.column)
        sd = floor[0] if floor else self.table.noise(self.column, self.table.rows[0].origin)
        if sd is None:
            return None
        return Noise(sd if self.reference is None else 100 * sd / self.reference, bool(floor))

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
        """Return why this is not delta, or nothing."""
        if self.reference is not None:
            return ""
        missing = "mean" if self.column.is_mean else f"run with {self.metric} > 0"
        return f"no full-head {missing}: {self.metric} itself, not δ"


def panels(table: Table) -> list[Panel]:
    """Return the panels of a model: the mean over its data sets first, then each of them."""
    references = [row for row in table.rows if row.run.reference]
    return [
        Panel(table, column, max(filter(None, values), default=None))
        for column in sorted(table.columns, key=lambda column: not column.is_mean)
        for values in [[table.cell(row, column).value for row in references]]
    ]


def front(points: Sequence[PlotPoint], higher: bool = True) -> list[PlotPoint]:
    """Return the points that none of equal or lower cost beats, cheapest first."""
    sign = 1 if higher else -1
    best: list[PlotPoint] = []
    for point in sorted(points, key=lambda p: (p.x, -sign * p.value)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best

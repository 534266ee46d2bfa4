"""The numbers of the figure: delta AP to the full head, panel by panel.

delta_m = (AP_m - AP_fullhead) / AP_fullhead, equation 11 of the study of adapters and LoRA for
Mask DINO and SEEM, here in percent. Without a full-head run a panel holds AP itself and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from segsweep.results.cells import Cell, Column, Row, Table
from segsweep.results.wording import metric_name


@dataclass(frozen=True)
class Point:
    """One setting in one panel: trained parameters, the value drawn and its spread."""

    row: Row
    trained: float
    value: float
    sd: float

    def label(self) -> tuple[str, str]:
        """Return what grows along a line ("I=1") and what its points agree on ("κ+λ")."""
        size, _, rest = self.row.run.detail.partition(", ")
        return size, rest


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

    def drawn(self, found: Cell) -> tuple[float, float] | None:
        """Return value and spread of a cell as drawn: delta in percent, or the value itself."""
        if found.value is None:
            return None
        if self.reference is None:
            return found.value, found.sd or 0.0
        scale = 100 / self.reference
        return scale * (found.value - self.reference), scale * (found.sd or 0.0)

    def points(self, trained: bool = True) -> list[Point]:
        """Return the settings that train something, or those that do not (the frozen base)."""
        found = []
        for row in self.table.rows:
            here = self.table.cell(row, self.column)
            drawn = self.drawn(here)
            if drawn and here.trained is not None and bool(here.trained) == trained:
                found.append(Point(row, here.trained, *drawn))
        return found

    def noise(self) -> Noise | None:
        """Return the noise as drawn: of same-seed repeats where there are any, else over seeds."""
        floor = self.table.floor(self.column)
        sd = floor[0] if floor else self.table.noise(self.column, self.table.rows[0].origin)
        if sd is None:
            return None
        return Noise(sd if self.reference is None else 100 * sd / self.reference, bool(floor))

    @property
    def is_mean(self) -> bool:
        """Whether this is the mean over all data sets."""
        return self.column.is_mean

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
        if not self.is_mean:
            return self.column.labels[-1]
        protocols = dict.fromkeys(protocol for _, protocol in self.column.kinds if protocol)
        mixed = f" ({' & '.join(protocols)})" if len(protocols) > 1 else ""
        return f"mean of {len(self.table.columns) - 1} data sets{mixed}"

    def quantity(self) -> str:
        """Return what the vertical axis shows."""
        words = self.metric if self.reference is None else f"δ {self.metric} to the full head"
        return f"{words} ({self.unit})"

    def remark(self) -> str:
        """Return why this is not delta, or nothing."""
        if self.reference is not None:
            return ""
        why = "no full-head mean" if self.is_mean else f"no full-head run with {self.metric} > 0"
        return f"{why}: {self.metric} itself, not δ"


def panels(table: Table) -> list[Panel]:
    """Return the panels of a model: the mean over its data sets first, then each of them."""
    found = []
    for column in sorted(table.columns, key=lambda column: not column.is_mean):
        full = [table.cell(row, column).value for row in table.rows if row.run.reference]
        found.append(Panel(table, column, max((v for v in full if v), default=None)))
    return found

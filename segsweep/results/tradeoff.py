"""The figure of the metric against a cost, with its Pareto front: what no cheaper setting beats."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.results.canvas import Style, grid, head, left_out, legend, styles
from segsweep.results.cells import Cell, Row, Table, mean
from segsweep.results.delta import Panel, panels
from segsweep.results.labels import Label, place
from segsweep.results.look import GREY, save, settle
from segsweep.results.wording import QUANTITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Choice:
    """One setting: what it costs, what it gives, and the spread of that over seeds."""

    row: Row
    cost: float
    value: float
    sd: float

    def label(self) -> str:
        """Return what tells it from others of its method."""
        return self.row.run.detail or self.row.run.family


def front(choices: list[Choice], higher: bool = True) -> list[Choice]:
    """Return the choices that none of equal or lower cost beats, cheapest first."""
    sign = 1 if higher else -1
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, -sign * c.value)):
        if not found or sign * choice.value > sign * found[-1].value:
            found.append(choice)
    return found


def choices(panel: Panel, cost: str) -> list[Choice]:
    """Return the settings of a panel whose cost is recorded and above zero."""
    found = []
    for row in panel.table.rows:
        cell: Cell = panel.table.cell(row, panel.column)
        price = mean(run.get(cost) for run in cell.runs)
        if cell.value is not None and price:
            price *= QUANTITIES[cost].factor
            found.append(Choice(row, price, cell.value, cell.sd or 0.0))
    return found


def tradeoff_figure(tables: list[Table], cost: str, stem: Path) -> list[Path]:
    """Draw a panel for every model and data set; return the files written.

    None where fewer than two settings have that cost recorded.
    """
    drawable = [(p, choices(p, cost)) for table in tables for p in panels(table)]
    drawable = [(panel, found) for panel, found in drawable if len(found) > 1]
    if not drawable:
        return []
    looks = styles(row.method for table in tables for row in table.rows)
    rows = [choice.row for _, found in drawable for choice in found]
    families = {row.run.family: looks[row.method] for row in rows}
    with grid(len(drawable)) as (figure, axes, width):
        drawn = []
        for ax, (panel, found) in zip(axes, drawable, strict=False):
            drawn.append((ax, found, _draw(ax, panel, found, cost, looks)))
        remarks = ["line: Pareto front; hollow: beaten by a cheaper setting"]
        plain = {name: Style(s.color, s.marker) for name, s in families.items()}
        legend(figure, plain, width, [*remarks, *left_out(len(drawable))])
        settle(figure)
        for ax, found, best in drawn:
            sized = [c for c in best if c.row.run.detail]  # the legend names the others
            texts = [Label(c.cost, c.value, c.label(), looks[c.row.method].color) for c in sized]
            corners = [(b.cost, a.value) for a, b in pairwise(best)]
            steps = [[(a.cost, a.value), corner] for a, corner in zip(best, corners, strict=False)]
            place(ax, texts, [*([(c.cost, c.value)] for c in found), *steps])
        return list(save(figure, stem))


def _draw(
    ax: Axes, panel: Panel, found: list[Choice], cost: str, looks: dict[str, Style]
) -> list[Choice]:
    """Draw one panel, labels excepted; return the front."""
    from matplotlib.ticker import LogLocator, NullLocator

    head(ax, panel.title(), panel.table.title)
    best = front(found, panel.column.direction != "lower")
    ax.step([c.cost for c in best], [c.value for c in best], where="post", color=GREY, lw=1.0)
    for choice in found:
        style = looks[choice.row.method]
        ax.errorbar(
            choice.cost,
            choice.value,
            choice.sd or None,
            color=style.color,
            marker=style.marker,
            markersize=5.5,
            markerfacecolor=style.color if choice in best else "white",
            capsize=2,
            elinewidth=0.8,
            zorder=3,
        )
    costs = [choice.cost for choice in found]
    if max(costs) > 10 * min(costs):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(min(costs) / 1.7, max(costs) * 1.7)
    else:
        ax.margins(0.12)
    ax.set_xlabel(QUANTITIES[cost].heading)
    unit = f" ({panel.column.unit})" if panel.column.unit else ""
    ax.set_ylabel(f"{panel.metric}{unit}")
    return best

"""The chart of domain shift: settings on the data that they were trained on, and on unseen ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from segsweep.results.cells import Column, Row, Table
from segsweep.results.charts.canvas import BAR, GREY, Chart, Painted, head
from segsweep.results.charts.lines import MARKERS, SHADES
from segsweep.results.elsewhere import OWN
from segsweep.results.wording import elided, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETTINGS = 16  # that are drawn of a table
SPREAD = 0.5  # of the room between two data sets, over which settings stand side by side
LABEL = 20  # letters of a data set


def shift_chart(tables: Sequence[Table]) -> Chart:
    """Return a panel for every table of `elsewhere.shift_tables`."""
    cells = (cell for t in tables for row in t.rows for cell in row.cells.values())
    bars = ["bars: standard deviation over seeds"] if any(cell.sd for cell in cells) else []
    return Chart([partial(_panel, table) for table in tables if table.rows], bars)


def _panel(table: Table, ax: Axes) -> Painted:
    """Paint each setting as points over the data sets, the one of training first."""
    painted = head(ax, table.rows[0].run.values["trained_on"], table.rows[0].run.model)
    columns = [column for column in table.columns if not column.is_mean]
    rows = table.rows[:SETTINGS]
    for number, row in enumerate(rows):
        shift = SPREAD * ((number + 0.5) / len(rows) - 0.5)
        points = [(i + shift, table.cell(row, c)) for i, c in enumerate(columns)]
        drawn = [(x, cell.value, cell.sd or 0.0) for x, cell in points if cell.value is not None]
        if not drawn:
            continue
        x, y, sd = zip(*drawn, strict=True)
        look: dict[str, Any] = {"color": SHADES[number % len(SHADES)], "ecolor": GREY}
        look |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, "linestyle": "none"}
        ax.errorbar(x, y, sd if any(sd) else None, label=row.setting, **look, **BAR)
        painted.tips += [(_tip(table, row, c), [(px, cell.value)]) for (px, cell), c in
                         zip(points, columns, strict=True) if cell.value is not None]  # fmt: skip
    own = sum(column.labels[-2] == OWN for column in columns)
    if 0 < own < len(columns):
        ax.axvline(own - 0.5, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(columns)), [elided(c.labels[-1], LABEL) for c in columns])
    ax.tick_params("x", labelsize=7, rotation=20 if len(columns) > 3 else 0)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylabel(" and ".join(dict.fromkeys(metric_name(c.metric) for c in columns)))
    handles, names = ax.get_legend_handles_labels()
    return replace(painted, handles=dict(zip(names, handles, strict=True)))


def _tip(table: Table, row: Row, column: Column) -> str:
    text = table.cell(row, column).text(table.decimals(column))
    return f"{row.setting}, {' '.join(column.labels[-2:])}: {text}"

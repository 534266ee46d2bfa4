"""The figure of the metric against one option of a method: rank, repeats, alpha, or any number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.results.canvas import grid, head, left_out, legend
from segsweep.results.cells import Row, Table
from segsweep.results.delta import Panel, panels
from segsweep.results.look import GREY, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBER = re.compile(r"(\w+)=(-?\d+(?:\.\d+)?(?:e-?\d+)?)$")
NAMES = {"r": "rank r", "I": "repeats I", "alpha": "scale α"}
MARKERS = "osD^vPX*"
SHADES = ("#0b5fa5", "#e07b00", "#2a9d6f", "#a23b72", "#7a5cc4", "#9c6b30", "#555555", "#b03030")


@dataclass
class Family:
    """Settings of one method on one model that differ in one number, and all in all data sets."""

    title: str
    model: str
    name: str  # of the number
    rows: dict[float, Row] = field(default_factory=dict)


def families(table: Table) -> list[Family]:
    """Return the families of a table that have at least two members, in the order of its rows."""
    found: dict[tuple[str, ...], Family] = {}
    for row in table.rows:
        parts = row.run.detail.split(", ") if row.run.detail else []
        for i, part in enumerate(parts):
            if number := NUMBER.match(part):
                name, value = number.groups()
                rest = ", ".join(parts[:i] + parts[i + 1 :])
                title = f"{row.run.family} ({rest})" if rest else row.run.family
                family = Family(title, table.title, NAMES.get(name, name))
                found.setdefault((row.method, name, rest), family).rows[float(value)] = row
    return [family for family in found.values() if len(family.rows) > 1]


def size_figure(tables: list[Table], stem: Path) -> list[Path]:
    """Draw a panel for every family; return the files written.

    Lines are data sets: delta to the full head, or the metric itself where that was not trained.
    Nothing is drawn where no method was run in two sizes.
    """
    drawable = [(family, table) for table in tables for family in families(table)]
    if not drawable:
        return []
    columns = list(dict.fromkeys(_name(p) for _, table in drawable for p in panels(table)))
    with grid(len(drawable)) as (figure, axes, width):
        for ax, (family, table) in zip(axes, drawable, strict=False):
            head(ax, family.title, family.model)
            shown = panels(table)
            relative = all(panel.reference is not None for panel in shown)
            for panel in shown:
                _line(ax, family, panel, columns.index(_name(panel)), relative)
            values = sorted(family.rows)
            if min(values) > 0 and max(values) / min(values) >= 8:
                ax.set_xscale("log", base=2)
            ax.set_xticks(values, [f"{value:g}" for value in values], minor=False)
            ax.minorticks_off()
            ax.set_xlabel(family.name)
            unit = f" ({shown[0].unit})" if shown[0].unit else ""
            ax.set_ylabel(shown[0].quantity() if relative else f"{shown[0].metric}{unit}")
            if relative:
                ax.axhline(0, color="#111111", linewidth=0.8, zorder=1)
        handles, labels = [], []
        for ax in axes:
            for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
                if text not in labels:
                    handles.append(handle)
                    labels.append(text)
        figure.legend(handles, labels, loc="outside lower center", ncols=2 * width, frameon=False)
        legend(figure, {}, width, left_out(len(drawable)))
        return list(save(figure, stem))


def _name(panel: Panel) -> str:
    return "mean of the data sets" if panel.is_mean else panel.title()


def _line(ax: Axes, family: Family, panel: Panel, number: int, relative: bool) -> None:
    """Draw one data set, or the mean, over the sizes of a family."""
    points = []
    for value, row in sorted(family.rows.items()):
        cell = panel.table.cell(row, panel.column)
        drawn = panel.drawn(cell) if relative else None
        if drawn is None and cell.value is not None and not relative:
            drawn = (cell.value, cell.sd or 0.0)
        if drawn is not None:
            points.append((value, *drawn))
    if not points:
        return
    color = "#111111" if panel.is_mean else SHADES[number % len(SHADES)]
    ax.errorbar(
        [x for x, _, _ in points],
        [y for _, y, _ in points],
        [sd for *_, sd in points] if any(sd for *_, sd in points) else None,
        color=color,
        ecolor=color if panel.is_mean else GREY,
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        linewidth=2.0 if panel.is_mean else 1.1,
        linestyle="-" if panel.is_mean else ("--", "-.", ":")[number % 3],
        capsize=2,
        elinewidth=0.8,
        label=_name(panel),
    )

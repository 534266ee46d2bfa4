"""Charts of lines: the metric against one option of a method, and against epochs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segsweep.results.cells import Row, Table
from segsweep.results.charts.canvas import BAR, BLACK, GREY, Chart, Painted, Style, head, styles
from segsweep.results.charts.panels import Panel, panels
from segsweep.results.settings import LabelledRun, arrange, order
from segsweep.results.wording import Values, axis_name, key_metric, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBER = re.compile(r"(\w+)=(-?\d+(?:\.\d+)?(?:e-?\d+)?)$")
MARKERS = "osD^vPX*"
SHADES = ("#0b5fa5", "#e07b00", "#2a9d6f", "#a23b72", "#7a5cc4", "#9c6b30", "#555555", "#b03030")

SEEDS = 3  # of a setting, whose mean is drawn
FILES = 400  # that are read at most
SETTINGS = 16  # lines of a panel
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

Curve = dict[float, float]
"""Metric by epoch."""

Lines = tuple[tuple[str, str, str], dict[str, tuple[LabelledRun, Curve]]]
"""A model, a data set, a metric, and of every setting there a run and the mean curve."""


@dataclass
class Sizes:
    """Settings of one method on one model that differ in one number, and all in all data sets."""

    title: str
    table: Table
    name: str  # of the number
    rows: dict[float, Row] = field(default_factory=dict)


def sizes(table: Table) -> list[Sizes]:
    """Return what a table has in at least two sizes, in the order of its rows."""
    families: dict[tuple[str, ...], Sizes] = {}
    for row in table.rows:
        parts = row.run.details
        for i, part in enumerate(parts):
            if number := NUMBER.match(part):
                symbol, value = number.groups()
                rest = ", ".join(parts[:i] + parts[i + 1 :])
                title = f"{row.run.family} ({rest})" if rest else row.run.family
                family = Sizes(title, table, axis_name(row.method, symbol))
                families.setdefault((row.method, symbol, rest), family).rows[float(value)] = row
    return [family for family in families.values() if len(family.rows) > 1]


def size_chart(families: Sequence[Sizes]) -> Chart:
    """Return a panel for every family.

    Lines are data sets: delta to the full head, or the metric itself where that was not trained.
    """
    names = dict.fromkeys(_name(p) for family in families for p in panels(family.table))
    remarks = ["bars: ± standard deviation over seeds"] if any(map(_spread, families)) else []
    return Chart([partial(_sizes, family, list(names)) for family in families], remarks)


def _spread(family: Sizes) -> bool:
    cells = (cell for row in family.rows.values() for cell in (*row.cells.values(), row.average))
    return any(cell.sd for cell in cells)


def _sizes(family: Sizes, columns: list[str], ax: Axes) -> Painted:
    """Paint a family."""
    painted = head(ax, family.title, family.table.title)
    shown = panels(family.table)
    relative = all(panel.reference is not None for panel in shown)
    for panel in shown:
        _size_line(ax, family, panel, columns.index(_name(panel)), relative)
    values = sorted(family.rows)
    if min(values) > 0 and max(values) / min(values) >= 8:
        ax.set_xscale("log", base=2)
    ax.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    ax.minorticks_off()
    ax.set_xlabel(family.name)
    quantities = (p.quantity() if relative else p.plain_quantity() for p in shown)
    ax.set_ylabel(" and ".join(dict.fromkeys(quantities)))
    if relative:
        ax.axhline(0, color=BLACK, linewidth=0.8, zorder=1)
    handles, names = ax.get_legend_handles_labels()
    return replace(painted, handles=dict(zip(names, handles, strict=True)))


def _name(panel: Panel) -> str:
    return "mean of the data sets" if panel.column.is_mean else panel.title()


def _size_line(ax: Axes, family: Sizes, panel: Panel, number: int, relative: bool) -> None:
    """Draw one data set, or the mean, over the sizes of a family."""
    points = []
    panel = panel if relative else replace(panel, reference=None)
    for value, row in sorted(family.rows.items()):
        if drawn := panel.drawn(panel.table.cell(row, panel.column)):
            points.append((value, *drawn))
    if not points:
        return
    x, y, sd = zip(*points, strict=True)
    look: dict[str, Any] = {"color": SHADES[number % len(SHADES)], "ecolor": GREY}
    look |= {"linewidth": 1.1, "linestyle": ("--", "-.", ":")[number % 3]}
    if panel.column.is_mean:
        look = {"color": BLACK, "ecolor": BLACK, "linewidth": 2.0, "linestyle": "-"}
    look |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, **BAR}
    ax.errorbar(x, y, sd if any(sd) else None, label=_name(panel), **look)


def read(path: Path, metric: str) -> Curve:
    """Read the validations of a `metrics.jsonl`; a broken last line is left out."""
    word, curve = f'"{metric}"'.encode(), {}
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, TypeError, KeyError):
                if word in line:
                    values = json.loads(line)
                    curve[float(values["epoch"])] = float(values[metric])
    return curve


def curves(runs: list[Values], *directories: Path) -> list[Lines]:
    """Return the mean curve of every setting, by (model, data set, metric), then by setting.

    `directories` are the folders with the run directories; the first that has a curve has it.
    """
    places: dict[tuple[str, str, str], dict[str, list[LabelledRun]]] = {}
    for run in arrange([run for run in runs if run["status"] == "done"]):
        settings = places.setdefault((run.model, run.data_set, key_metric(run.values)), {})
        settings.setdefault(run.setting, []).append(run)
    drawable, left = [], FILES
    for place, settings in sorted(places.items()):
        lines = {}
        ordered = sorted(settings.items(), key=lambda setting: order(setting[1][0]))
        for setting, members in ordered[:SETTINGS]:
            chosen = [run.values for run in members[: min(SEEDS, left)]]
            left -= len(chosen)
            curve = _mean([_curve(run, directories) for run in chosen])
            if len(curve) > 1:
                lines[setting] = (members[0], curve)
        if lines:
            drawable.append((place, lines))
    return drawable


def _curve(run: Values, directories: Sequence[Path]) -> Curve:
    files = [directory / str(run.get("name")) / "metrics.jsonl" for directory in directories]
    return next(filter(None, (read(file, key_metric(run)) for file in files)), {})


def _mean(curves: list[Curve]) -> Curve:
    """Return the mean of curves where all have a value."""
    known = [curve for curve in curves if curve]
    shared = set.intersection(*map(set, known)) if known else set()
    return {epoch: fmean(curve[epoch] for curve in known) for epoch in shared}


def curve_chart(drawable: Sequence[Lines]) -> Chart:
    """Return a panel for every model and data set."""
    looks = styles(run for _, lines in drawable for run, _ in lines.values())
    dashes = _dashes(drawable, looks)
    painters = [partial(_curves, lines, looks, dashes) for lines in drawable]
    return Chart(painters, [f"lines: means of up to {SEEDS} seeds"], size=(4.6, 3.4))


def _curves(drawn: Lines, styles: dict[str, Style], dashes: dict[str, Any], ax: Axes) -> Painted:
    """Paint the curves of a model on a data set."""
    (model, data_set, metric), lines = drawn
    painted = head(ax, data_set, model)
    for setting, (run, curve) in lines.items():
        points, style = sorted(curve.items()), styles[run.method]
        (line,) = ax.plot(*zip(*points, strict=True), color=style.color, marker=style.marker)
        line.set(linestyle=dashes[setting], markersize=3.5)
        painted.handles[setting] = line
        epoch, value = points[-1]
        painted.tips.append((f"{setting}: {value:.2f} at epoch {epoch:g}", points))
    run = next(iter(lines.values()))[0].values
    name, unit = metric_name(metric), run.get(f"metrics.{metric}.unit")
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{name} ({unit})" if unit else name)
    return painted


def _dashes(drawable: Sequence[Lines], styles: dict[str, Style]) -> dict[str, Any]:
    """Return the dash of every setting: those of one colour differ."""
    colors: dict[str, dict[str, None]] = {}
    for _, lines in drawable:
        for setting, (run, _) in lines.items():
            colors.setdefault(styles[run.method].color, {})[setting] = None
    return {s: DASHES[i % len(DASHES)] for same in colors.values() for i, s in enumerate(same)}

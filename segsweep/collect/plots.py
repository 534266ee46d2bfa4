"""Delta AP to the full head against trained parameters: one panel per model and data set.

delta_m = (AP_m - AP_fullhead) / AP_fullhead, equation 11 of the study of adapters and LoRA for
Mask DINO and SEEM, here in percent. Without a full-head run a panel shows AP itself and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.collect.labels import Label, place
from segsweep.collect.tables import AVERAGE, Cell, Row, Table, cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE, BASE = "full_head", "frozen"
COLUMNS = 3  # panels side by side
GREY = "#6b6b6b"


@dataclass(frozen=True)
class Style:
    """How a method is drawn; shapes and dashes tell it apart without colour, too."""

    color: str
    marker: str
    line: Any = "none"


STYLES = {
    "full_head": Style("#111111", "s"),
    "decoder_only": Style(GREY, "D"),
    "embeddings_only": Style(GREY, "v"),
    "adapter": Style("#0b5fa5", "o", "-"),
    "lora": Style("#e07b00", "^", "--"),
}
MORE_STYLES = [
    Style("#2a9d6f", "P", "-."),
    Style("#a23b72", "X", ":"),
    Style("#7a5cc4", "p", "-"),
    Style("#9c6b30", "h", "--"),
]
LOOK: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "segsweep",  # equal records give an equal file
}


@dataclass(frozen=True)
class Point:
    """One setting in one panel: trained parameters, the value drawn and its spread."""

    row: Row
    trained: float
    value: float
    sd: float

    def label(self) -> tuple[str, str]:
        """Return what grows along a line ("I=1") and what its points agree on ("κ+λ")."""
        size, _, rest = self.row.detail.partition(", ")
        return size, rest


@dataclass(frozen=True)
class Series:
    """Points that one line joins; only a method's longest line is filled and labelled briefly."""

    points: list[Point]
    style: Style
    main: bool

    def draw(self, ax: Axes) -> None:
        """Draw the line with its markers and error bars."""
        ax.errorbar(
            [p.trained for p in self.points],
            [p.value for p in self.points],
            [p.sd for p in self.points] if any(p.sd for p in self.points) else None,
            color=self.style.color,
            marker=self.style.marker,
            linestyle=self.style.line,
            linewidth=1.2,
            markersize=5.5,
            markerfacecolor=self.style.color if self.main else "white",
            capsize=2,
            elinewidth=0.8,
            zorder=3,
        )

    def labels(self) -> list[Label]:
        """Return "r=2", then "4", "8", ... along the main line, the whole detail elsewhere."""
        texts = []
        for i, point in enumerate(self.points):
            size, rest = point.label()
            short = size.rpartition("=")[2] if i else size
            texts.append(short if self.main else f"{size}, {rest}".strip(", "))
        return [
            Label(p.trained, p.value, text, self.style.color)
            for p, text in zip(self.points, texts, strict=True)
            if text
        ]

    def paths(self) -> list[list[tuple[float, float]]]:
        """Return the line and the error bars, each as a polyline in data units."""
        bars = [[(p.trained, p.value - p.sd), (p.trained, p.value + p.sd)] for p in self.points]
        return [[(p.trained, p.value) for p in self.points], *bars]


@dataclass(frozen=True)
class Panel:
    """One data set, or their mean, of one model; values are relative to the full head's."""

    table: Table
    column: str
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
            here = cell(row, self.column)
            drawn = self.drawn(here)
            if drawn and here.trained is not None and bool(here.trained) == trained:
                found.append(Point(row, here.trained, *drawn))
        return found

    @property
    def is_mean(self) -> bool:
        """Whether this is the mean over all data sets."""
        return self.column == AVERAGE

    @property
    def unit(self) -> str:
        """The unit of the values as drawn."""
        return "%" if self.reference is not None else self.table.unit

    def title(self) -> str:
        """Return the data set, or of how many this is the mean."""
        return f"mean of {len(self.table.data_sets)} data sets" if self.is_mean else self.column

    def quantity(self) -> str:
        """Return what the vertical axis shows."""
        name = self.table.metric.removeprefix("segm_")
        return (
            f"{f'δ {name} to the full head' if self.reference is not None else name} ({self.unit})"
        )


def panels(table: Table) -> list[Panel]:
    """Return the panels of a model: the mean over its data sets first, then each of them."""
    found = []
    for column in sorted(table.columns(), key=lambda column: column != AVERAGE):
        full = [cell(row, column).value for row in table.rows if row.method == REFERENCE]
        found.append(Panel(table, column, max((v for v in full if v), default=None)))
    return found


def delta_figure(tables: list[Table], stem: Path) -> list[Path]:
    """Draw all panels to `stem`.png and `stem`.svg; return both paths."""
    import matplotlib
    from matplotlib.figure import Figure

    drawable = [panel for table in tables for panel in panels(table)]
    drawable = [panel for panel in drawable if panel.points()] or drawable[:1]
    width = 2 if len(drawable) == 4 else min(len(drawable), COLUMNS)
    height = ceil(len(drawable) / width)
    styles = _styles(tables)
    with matplotlib.rc_context(LOOK):
        size = (0.4 + 3.7 * width, 0.5 + 3.0 * height)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(height, width, squeeze=False).flat
        drawn = [(ax, _draw(ax, p, styles)) for ax, p in zip(axes, drawable, strict=False)]
        for ax in list(axes)[len(drawable) :]:
            ax.remove()
        _legend(figure, [one for _, series in drawn for one in series], width)
        figure.draw_without_rendering()  # fixes the size of the axes, which labels depend on
        figure.set_layout_engine("none")
        for ax, series in drawn:
            labels = [label for one in series for label in one.labels()]
            paths = [path for one in series for path in one.paths()]
            place(ax, labels, [*paths, [(x, 0.0) for x in ax.get_xlim()]])
        return list(_save(figure, stem))


def _styles(tables: list[Table]) -> dict[str, Style]:
    """Return a style for every method; those that have none of their own take turns."""
    methods = sorted({row.method for table in tables for row in table.rows} - {*STYLES, BASE})
    return STYLES | {m: MORE_STYLES[i % len(MORE_STYLES)] for i, m in enumerate(methods)}


def _draw(ax: Axes, panel: Panel, styles: dict[str, Style]) -> list[Series]:
    """Draw one panel, labels excepted; return what was drawn."""
    ax.set_title(panel.title(), loc="left")
    above = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(panel.table.model, (0, 1), (0, 18), color=GREY, fontsize=7, **above)
    ax.set_xlabel("trained parameters")
    points = panel.points()
    if not points:
        ax.set(xticks=[], yticks=[])
        _say(ax, "no finished run", 0.5)
        return []
    series = _series(points, styles)
    for one in series:
        one.draw(ax)
    _scales(ax, points, remark=panel.reference is None)
    ax.set_ylabel(panel.quantity())
    if panel.reference is None:
        missing = "not every set has a full-head run" if panel.is_mean else "no full-head run here"
        _say(ax, f"{missing}: not δ but the value itself", 0.99)
    else:
        ax.axhline(0, color="#111111", linewidth=0.8, zorder=1)
    _frozen(ax, panel)
    return series


def _series(points: list[Point], styles: dict[str, Style]) -> list[Series]:
    """Group the points of each method into lines; the longest of them, if any, is the main one."""
    found = []
    for method in dict.fromkeys(p.row.method for p in points):
        lines: dict[str, list[Point]] = {}
        for point in sorted(points, key=lambda p: p.trained):
            if point.row.method == method:
                lines.setdefault(point.label()[1], []).append(point)
        longest = max(len(line) for line in lines.values())
        alone = sum(len(line) == longest for line in lines.values()) == 1
        for line in lines.values():
            found.append(Series(line, styles[method], main=alone and len(line) == longest))
    return found


def _scales(ax: Axes, points: list[Point], remark: bool) -> None:
    """Fit the axes to the trained settings, with room for labels and for a remark on top."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    low, high = min(p.value - p.sd for p in points), max(p.value + p.sd for p in points)
    room = max(0.12 * (high - low), 1.0)
    ax.set_ylim(low - room, high + room * (2 if remark else 1))
    least, most = min(p.trained for p in points), max(p.trained for p in points)
    margin = max(1.6, sqrt(10 * least / most))  # at least one decade
    ax.set_xscale("log")
    ax.set_xlim(least / margin, most * margin)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def _frozen(ax: Axes, panel: Panel) -> None:
    """Mark the frozen base, which trains nothing and so has no place on a logarithmic axis."""
    low, high = ax.get_ylim()
    for point in panel.points(trained=False):
        text, height = f"{point.row.setting.lower()} {point.value:.0f} {panel.unit}", 0.01
        if low <= point.value <= high:
            ax.axhline(point.value, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            height = (point.value - low) / (high - low)
        else:
            text += " ↓" if point.value < low else " ↑"
        right = {"transform": ax.transAxes, "ha": "right", "va": "bottom"}
        ax.text(0.99, height, text.replace("-", "−"), color=GREY, fontsize=7, **right)


def _say(ax: Axes, text: str, height: float) -> None:
    """Write a remark into a panel."""
    ax.text(
        0.5, height, text, transform=ax.transAxes, ha="center", va="top", color=GREY, style="italic"
    )


def _legend(figure: Figure, series: list[Series], width: int) -> None:
    from matplotlib.lines import Line2D

    families = {one.points[0].row.family: one.style for one in series}
    handles = [
        Line2D([], [], color=s.color, marker=s.marker, linestyle=s.line, markersize=5.5, label=name)
        for name, s in families.items()
    ]
    if any(point.sd for one in series for point in one.points):
        bars = "bars: ± standard deviation over seeds"
        handles.append(Line2D([], [], color=GREY, marker="|", linestyle="none", label=bars))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2 * width, frameon=False)


def _save(figure: Figure, stem: Path) -> Iterator[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=200, metadata=metadata)
        yield path

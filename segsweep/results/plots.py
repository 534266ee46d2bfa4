"""The figure of delta AP against trained parameters: one panel per model and data set."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.results.canvas import Style, grid, head, left_out, legend, say, styles
from segsweep.results.cells import Table
from segsweep.results.delta import Panel, Point, panels
from segsweep.results.labels import Label, place
from segsweep.results.look import GREY, save, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def delta_figure(tables: list[Table], stem: Path) -> list[Path]:
    """Draw all panels to `stem`.png, .svg and .pdf; return their paths, none without tables."""
    if not tables:
        return []
    drawable = [panel for table in tables for panel in panels(table)]
    drawable = [panel for panel in drawable if panel.points()] or drawable[:1]
    looks = styles(row.method for table in tables for row in table.rows)
    with grid(len(drawable)) as (figure, axes, width):
        drawn = [(ax, _draw(ax, p, looks)) for ax, p in zip(axes, drawable, strict=False)]
        series = [one for _, found in drawn for one in found]
        families = {one.points[0].row.run.family: one.style for one in series}
        legend(figure, families, width, [*_remarks(series, drawable), *left_out(len(drawable))])
        label(figure, drawn)
        return list(save(figure, stem))


def label(figure: Figure, drawn: list[tuple[Axes, list[Series]]]) -> None:
    """Write the labels of all points, clear of the lines."""
    settle(figure)
    for ax, series in drawn:
        if series:
            labels = [text for one in series for text in one.labels()]
            paths = [path for one in series for path in one.paths()]
            place(ax, labels, [*paths, [(x, 0.0) for x in ax.get_xlim()]])


def _remarks(series: list[Series], drawable: list[Panel]) -> list[str]:
    bars = any(point.sd for one in series for point in one.points)
    return [*(["bars: ± standard deviation over seeds"] if bars else []), *_bands(drawable)]


def _bands(drawable: list[Panel]) -> list[str]:
    """Say what the bands are, and where there is none because repeats are equal, as on a CPU."""
    noises = [panel.noise() for panel in drawable if panel.reference is not None]
    drawn = {noise.repeats for noise in noises if noise and noise.sd}
    words = {
        True: "standard deviation of same-seed repeats",
        False: "pooled standard deviation over seeds",
    }
    told = ", else ".join(text for repeats, text in words.items() if repeats in drawn)
    equal = any(noise.repeats and not noise.sd for noise in noises if noise)
    return [
        *([f"band: ± {told}"] if told else []),
        *(["no band: same-seed repeats are equal"] if equal else []),
    ]


def _draw(ax: Axes, panel: Panel, styles: dict[str, Style]) -> list[Series]:
    """Draw one panel, labels excepted; return what was drawn."""
    head(ax, panel.title(), panel.table.title)
    ax.set_xlabel("trained parameters")
    points = panel.points()
    if not points:
        ax.set(xticks=[], yticks=[])
        say(ax, "no finished run that trains", 0.5)
        return []
    series = _series(points, styles)
    for one in series:
        one.draw(ax)
    _scales(ax, points, remark=bool(panel.remark()))
    ax.set_ylabel(panel.quantity())
    say(ax, panel.remark(), 0.99)
    if panel.reference is not None:
        ax.axhline(0, color="#111111", linewidth=0.8, zorder=1)
        noise = panel.noise()
        if noise and noise.sd:
            ax.axhspan(-noise.sd, noise.sd, color="#d9d9d9", linewidth=0, zorder=0.5)
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

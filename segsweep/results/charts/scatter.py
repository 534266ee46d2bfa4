"""Charts of settings as points: delta to the full head, or the metric, against what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any

from segsweep.results.charts.canvas import (
    BAR,
    BLACK,
    GREY,
    TITLE,
    Chart,
    Painted,
    Style,
    handle,
    head,
    remark,
)
from segsweep.results.charts.labels import Label
from segsweep.results.charts.panels import Panel, PlotPoint, front
from segsweep.results.wording import QUANTITIES, Quantity, elided

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOISES = {  # by whether repeats tell it
    True: "standard deviation of same-seed repeats",
    False: "pooled standard deviation over seeds",
}
MARKED: dict[str, Any] = {"markersize": 5.5, "zorder": 3, **BAR}


@dataclass(frozen=True)
class Series:
    """Points that one line joins; only a method's longest line is filled and labelled briefly."""

    points: list[PlotPoint]
    style: Style
    main: bool

    def draw(self, ax: Axes) -> None:
        """Draw the line with its markers and error bars."""
        x, y, sd = zip(*((p.x, p.value, p.sd) for p in self.points), strict=True)
        look = _look(self.style, self.main) | {"linestyle": self.style.line, "linewidth": 1.2}
        ax.errorbar(x, y, sd if any(sd) else None, **look)

    def labels(self) -> list[Label]:
        """Return "r=2", then "4", "8", ... along the main line, the whole detail elsewhere."""
        labels = []
        for i, p in enumerate(self.points):
            size, rest = p.label()
            short = size.rpartition("=")[2] if i else size
            text = short if self.main else f"{size}, {rest}".strip(", ")
            labels.append(Label(p.x, p.value, text, self.style.color))
        return [label for label in labels if label.text]

    def paths(self) -> list[list[tuple[float, float]]]:
        """Return the line and the error bars, each as a polyline in data units."""
        bars = [[(p.x, p.value - p.sd), (p.x, p.value + p.sd)] for p in self.points]
        return [[(p.x, p.value) for p in self.points], *bars]


def _look(style: Style, filled: bool) -> dict[str, Any]:
    """Return how points are drawn; `filled` ones stand out."""
    face = style.color if filled else "white"
    return {"color": style.color, "marker": style.marker, "markerfacecolor": face, **MARKED}


def delta_chart(panels: Sequence[Panel], styles: dict[str, Style]) -> Chart:
    """Return delta to the full head against trained parameters, panel by panel."""
    bars = any(point.sd for panel in panels for point in panel.points())
    remarks = [*(["bars: ± standard deviation over seeds"] if bars else []), *_bands(panels)]
    return Chart([partial(_delta, panel, styles) for panel in panels], remarks)


def _bands(panels: Sequence[Panel]) -> list[str]:
    """Say what the bands are, and where there is none because repeats are equal, as on a CPU."""
    noises = [panel.noise() for panel in panels if panel.reference is not None]
    drawn = {noise.repeats for noise in noises if noise and noise.sd}
    kinds = ", else ".join(text for repeats, text in NOISES.items() if repeats in drawn)
    equal = any(noise.repeats and not noise.sd for noise in noises if noise)
    return [
        *([f"band: ± {kinds}"] if kinds else []),
        *(["no band: same-seed repeats are equal"] if equal else []),
    ]


def _delta(panel: Panel, styles: dict[str, Style], ax: Axes) -> Painted:
    """Paint a panel of deltas."""
    painted = head(ax, panel.title(), panel.table.title)
    ax.set_xlabel("trained parameters")
    points = panel.points()
    if not points:
        ax.set(xticks=[], yticks=[])
        remark(ax, "no finished run that trains", 0.5)
        return painted
    lines = _series(points, styles)
    for series in lines:
        series.draw(ax)
    _scales(ax, points, remark=bool(panel.remark()))
    ax.set_ylabel(panel.quantity())
    remark(ax, panel.remark(), 0.99)
    if panel.reference is not None:
        ax.axhline(0, color=BLACK, linewidth=0.8, zorder=1)
        noise = panel.noise()
        if noise and noise.sd:
            ax.axhspan(-noise.sd, noise.sd, color="#d9d9d9", linewidth=0, zorder=0.5)
    _frozen(ax, panel)
    zero = [(x, 0.0) for x in ax.get_xlim()]
    return replace(
        painted,
        handles={s.points[0].row.run.family: handle(s.style) for s in lines},
        labels=[label for series in lines for label in series.labels()],
        lines=[*(path for series in lines for path in series.paths()), zero],
        tips=[(_delta_tip(panel, point), [(point.x, point.value)]) for point in points],
    )


def _delta_tip(panel: Panel, point: PlotPoint) -> str:
    value = panel.table.cell(point.row, panel.column).text()
    return (
        f"{point.row.setting}: {panel.quantity()} {point.value:.2f}{_spread(point)}, "
        f"{value} {panel.metric}, {point.x:,.0f} parameters trained"
    )


def _spread(point: PlotPoint) -> str:
    return f" ± {point.sd:.2f}" if point.sd else ""


def _series(points: list[PlotPoint], styles: dict[str, Style]) -> list[Series]:
    """Group the points of each method into lines; the longest of them, if any, is the main one."""
    series = []
    for method in dict.fromkeys(p.row.method for p in points):
        lines: dict[str, list[PlotPoint]] = {}
        for point in sorted(points, key=lambda p: p.x):
            if point.row.method == method:
                lines.setdefault(point.label()[1], []).append(point)
        lengths = [len(line) for line in lines.values()]
        longest = max(lengths) if lengths.count(max(lengths)) == 1 else None
        series += [Series(line, styles[method], len(line) == longest) for line in lines.values()]
    return series


def _scales(ax: Axes, points: list[PlotPoint], remark: bool) -> None:
    """Fit the axes to the trained settings, with room for labels and for a remark on top."""
    from matplotlib.ticker import EngFormatter

    low, high = min(p.value - p.sd for p in points), max(p.value + p.sd for p in points)
    room = max(0.12 * (high - low), 1.0)
    ax.set_ylim(low - room, high + room * (2 if remark else 1))
    least, most = min(p.x for p in points), max(p.x for p in points)
    margin = max(1.6, sqrt(10 * least / most))  # at least one decade
    _logarithmic(ax, least / margin, most * margin, EngFormatter(sep=""))


def _logarithmic(ax: Axes, low: float, high: float, form: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1e4 * low else (1.0,)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(form)


def _frozen(ax: Axes, panel: Panel) -> None:
    """Mark the frozen base, which trains nothing and so has no place on a logarithmic axis."""
    low, high = ax.get_ylim()
    for point in panel.points(trained=False):
        name = elided(point.row.setting.lower(), TITLE)
        text, height = f"{name} {point.value:.0f} {panel.unit}", 0.01
        if low <= point.value <= high:
            ax.axhline(point.value, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            height = (point.value - low) / (high - low)
        else:
            text += " ↓" if point.value < low else " ↑"
        right = {"transform": ax.transAxes, "ha": "right", "va": "bottom"}
        ax.text(0.99, height, text.replace("-", "−"), color=GREY, fontsize=7, **right)


def tradeoff_chart(panels: Sequence[Panel], cost: str, styles: dict[str, Style]) -> Chart:
    """Return the metric against a cost with its Pareto front: what no cheaper setting beats."""
    remarks = ["line: Pareto front; hollow: beaten by a cheaper setting"]
    return Chart([partial(_tradeoff, p, cost, styles) for p in panels], remarks)


def _tradeoff(panel: Panel, cost: str, styles: dict[str, Style], ax: Axes) -> Painted:
    """Paint a panel of metric against cost."""
    painted = head(ax, panel.title(), panel.table.title)
    points, quantity = panel.priced(cost), QUANTITIES[cost]
    best = front(points, panel.column.direction != "lower")
    ax.step([p.x for p in best], [p.value for p in best], where="post", color=GREY, lw=1.0)
    for p in points:
        ax.errorbar(p.x, p.value, p.sd or None, **_look(styles[p.row.method], p in best))
    costs = [p.x for p in points]
    if max(costs) > 10 * min(costs):
        _logarithmic(ax, min(costs) / 1.7, max(costs) * 1.7, "{x:g}")
    else:
        ax.margins(0.12)
        ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(quantity.heading)
    ax.set_ylabel(panel.plain_quantity())
    corners = [(b.x, a.value) for a, b in pairwise(best)]
    steps = [[(a.x, a.value), corner] for a, corner in zip(best, corners, strict=False)]
    families = {p.row.run.family: styles[p.row.method] for p in points}
    return replace(
        painted,
        handles={name: handle(style, line="none") for name, style in families.items()},
        labels=[  # the legend names those of one size
            Label(p.x, p.value, p.row.run.detail, styles[p.row.method].color)
            for p in best
            if p.row.run.detail
        ],
        lines=[*([(p.x, p.value)] for p in points), *steps],
        tips=[(_tradeoff_tip(panel, p, quantity), [(p.x, p.value)]) for p in points],
    )


def _tradeoff_tip(panel: Panel, p: PlotPoint, cost: Quantity) -> str:
    value = f"{panel.metric} {p.value:.2f}{_spread(p)}"
    return f"{p.row.setting}: {value}, {cost.name} {p.x:.4g} {cost.unit}"

"""Charts of settings as points: delta to the full head, or the metric, against what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from segsweep.results.charts.fronts import BEHIND, NEAR, ON, example, pale, steps
from segsweep.results.charts.labels import Label
from segsweep.results.charts.panels import GIVEN, REPEATS, SEEDS, Front, Panel, PlotPoint
from segsweep.results.wording import QUANTITIES, Quantity, elided

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

RED = "#b03030"
INTERVALS = "bars: 95 % intervals of the difference to the full head (Dunnett)"
SHADE = "#d9d9d9"  # of the noise around zero
UNSTABLE = "unstable over seeds, never on the front"
UNKNOWN = {  # by origin
    "ours": "one run each: noise is unknown and not drawn",
    "reported": "published without a spread: noise is unknown and not drawn",
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
        x, y, bars = zip(*((p.x, p.value, p.bar) for p in self.points), strict=True)
        look = _look(self.style, self.main) | {"linestyle": self.style.line, "linewidth": 1.2}
        ax.errorbar(x, y, bars if any(bars) else None, **look)

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
        bars = [[(p.x, p.value - p.bar), (p.x, p.value + p.bar)] for p in self.points]
        return [[(p.x, p.value) for p in self.points], *bars]


def _look(style: Style, filled: bool, face: str = "white") -> dict[str, Any]:
    """Return how points are drawn; `filled` ones stand out."""
    face = style.color if filled else face
    return {"color": style.color, "marker": style.marker, "markerfacecolor": face, **MARKED}


def _crossed(ax: Axes, points: Sequence[PlotPoint], text: str) -> dict[str, Artist]:
    """Cross out unstable points; return what explains it, nothing where there are none."""
    odd = [point for point in points if point.unstable]
    if not odd:
        return {}
    look: dict[str, Any] = {"marker": "x", "color": RED, "markersize": 9, "markeredgewidth": 1.3}
    x, y = zip(*((point.x, point.value) for point in odd), strict=True)
    (cross,) = ax.plot(x, y, linestyle="none", zorder=3.5, **look)
    return {text: cross}


def delta_chart(panels: Sequence[Panel], styles: dict[str, Style]) -> Chart:
    """Return delta to the full head against trained parameters, panel by panel."""
    remarks = [*_bars(panels), *_bands(panels)]
    return Chart([partial(_delta, panel, styles) for panel in panels], remarks)


def _bars(panels: Sequence[Panel]) -> list[str]:
    """Say what the bars are, and where there are none."""
    spread = [p for p in panels if not p.relative and any(point.bar for point in p.points())]
    mean = any(panel.column.is_mean for panel in spread)
    other = any(not panel.column.is_mean for panel in spread)
    return [
        *([INTERVALS] if any(panel.relative for panel in panels) else []),
        *(["bars of means: ± standard deviation over seeds, never tested"] if mean else []),
        *(["bars without δ: ± standard deviation over seeds"] if other else []),
        *_unknown(panels),
    ]


def _unknown(panels: Sequence[Panel]) -> list[str]:
    """Say why some panels show no noise."""
    untold = (panel for panel in panels if not (panel.column.is_mean or panel.evidence.known))
    return [UNKNOWN[origin] for origin in sorted({p.table.rows[0].origin for p in untold})]


def _bands(panels: Sequence[Panel]) -> list[str]:
    """Say what the bands are, and where there is none because repeats are equal, as on a CPU."""
    bands = [band for panel in panels if panel.reference is not None and (band := panel.noise())]
    drawn = {band.source for band in bands if band.sd}
    sources = ", else ".join(source for source in (REPEATS, SEEDS, GIVEN) if source in drawn)
    equal = any(band.source == REPEATS and not band.sd for band in bands)
    return [
        *([f"band: ± {sources}"] if sources else []),
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
            ax.axhspan(-noise.sd, noise.sd, color=SHADE, linewidth=0, zorder=0.5)
    _frozen(ax, panel.points(trained=False), panel.unit)
    zero = [(x, 0.0) for x in ax.get_xlim()]
    odd = _crossed(ax, points, "unstable over seeds")
    return replace(
        painted,
        handles={s.points[0].row.run.family: handle(s.style) for s in lines},
        states=odd,
        labels=[label for series in lines for label in series.labels()],
        lines=[*(path for series in lines for path in series.paths()), zero],
        tips=[(_delta_tip(panel, point), [(point.x, point.value)]) for point in points],
    )


def _delta_tip(panel: Panel, point: PlotPoint) -> str:
    value = panel.table.cell(point.row, panel.column).text()
    if panel.relative and point.bar:
        spread = f" ({point.value - point.bar:.2f} to {point.value + point.bar:.2f})"
    else:
        spread = _spread(point)
    return (
        f"{point.row.setting}: {panel.quantity()} {point.value:.2f}{spread}, "
        f"{value} {panel.metric}, {point.x:,.0f} parameters trained"
        f"{', unstable over seeds' if point.unstable else ''}"
    )


def _spread(point: PlotPoint) -> str:
    return f" ± {point.bar:.2f}" if point.bar else ""


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

    low, high = min(p.value - p.bar for p in points), max(p.value + p.bar for p in points)
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


def _frozen(ax: Axes, points: Sequence[PlotPoint], unit: str) -> None:
    """Mark the frozen base, which costs nothing and so has no place on a logarithmic axis."""
    low, high = ax.get_ylim()
    for point in points:
        name = elided(point.row.setting.lower(), TITLE)
        text, height = f"{name} {point.value:.2f} {unit}".rstrip(), 0.01
        if low <= point.value <= high:
            ax.axhline(point.value, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            height = (point.value - low) / (high - low)
        else:
            text += " ↓" if point.value < low else " ↑"
        right = {"transform": ax.transAxes, "ha": "right", "va": "bottom"}
        ax.text(0.99, height, text.replace("-", "−"), color=GREY, fontsize=7, **right)


def tradeoff_chart(panels: Sequence[Panel], cost: str, styles: dict[str, Style]) -> Chart:
    """Return the metric against a cost with its Pareto front: what no cheaper setting beats."""
    means = any(panel.column.is_mean for panel in panels)
    remarks = ["means over data sets are not tested"] if means else []
    painters = [partial(_tradeoff, panel, cost, styles) for panel in panels]
    return Chart(painters, [*remarks, *_unknown(panels)])


def _tradeoff(panel: Panel, cost: str, styles: dict[str, Style], ax: Axes) -> Painted:
    """Paint a panel of metric against cost."""
    painted = head(ax, panel.title(), panel.table.title)
    points, quantity = panel.priced(cost), QUANTITIES[cost]
    front = panel.front(points)
    states = steps(ax, panel, front, max(p.x for p in points))
    for p in points:
        style = styles[p.row.method]
        face = pale(style.color) if p in front.near else "white"
        ax.errorbar(p.x, p.value, **_look(style, p in front.best, face))
        state = ON if p in front.best else NEAR if p in front.near else BEHIND
        if front.best and not p.unstable:
            states.setdefault(state, example(state))
    states |= _crossed(ax, points, UNSTABLE)
    costs = [p.x for p in points]
    if max(costs) > 10 * min(costs):
        _logarithmic(ax, min(costs) / 1.7, max(costs) * 1.7, "{x:g}")
    else:
        ax.margins(0.12)
        ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(quantity.heading)
    ax.set_ylabel(panel.plain_quantity())
    remark(ax, panel.unlearnt(points), 0.99)
    _frozen(ax, panel.free(cost), panel.column.unit)
    ends = [*(p.x for p in front.best[1:]), max(costs)]
    edges = [[(p.x, p.value), (end, p.value)] for p, end in zip(front.best, ends, strict=False)]
    families = {p.row.run.family: styles[p.row.method] for p in points}
    return replace(
        painted,
        handles={name: handle(style, line="none") for name, style in families.items()},
        states=states,
        labels=_sizes(front.best, points, styles),
        lines=[*([(p.x, p.value)] for p in points), *edges],
        tips=[(_tradeoff_tip(panel, front, p, quantity), [(p.x, p.value)]) for p in points],
    )


def _sizes(
    best: Sequence[PlotPoint], points: Sequence[PlotPoint], styles: dict[str, Style]
) -> list[Label]:
    """Name those on a front by their size, and by what else tells them from their method's others.

    The legend names methods of one size.
    """
    rests: dict[str, set[str]] = {}
    for p in points:
        rests.setdefault(p.row.method, set()).add(p.label()[1])
    return [
        Label(p.x, p.value, p.row.run.detail if len(rests[method]) > 1 else p.label()[0], color)
        for p in best
        for method in [p.row.method]
        for color in [styles[method].color]
        if p.row.run.detail
    ]


def _tradeoff_tip(panel: Panel, front: Front, p: PlotPoint, cost: Quantity) -> str:
    value = f"{panel.metric} {p.value:.2f}{_spread(p)}"
    state = UNSTABLE if p.unstable else ON if p in front.best else NEAR
    said = f", {state}" if p.unstable or p in front.best or p in front.near else ""
    return f"{p.row.setting}: {value}, {cost.name} {p.x:.4g} {cost.unit}{said}"

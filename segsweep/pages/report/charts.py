"""Charts as plain geometry: the template draws them as SVG, readable without a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from segsweep.results.canvas import Style, styles
from segsweep.results.cells import Table
from segsweep.results.delta import Panel, panels
from segsweep.results.tradeoff import choices, front
from segsweep.results.wording import QUANTITIES

MOST = 30  # charts of a group
WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40  # room around the axes
LETTER = 6.3  # width of a small letter and of some room
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MARKS = {"s": "square", "D": "square", "o": "circle", "^": "triangle", "v": "triangle"}


@dataclass(frozen=True)
class Dot:
    """A point in data units with its spread, what its tooltip says and its label, if any."""

    x: float
    y: float
    sd: float
    tip: str
    label: str
    family: str
    style: Style
    filled: bool = True


@dataclass(frozen=True)
class Mark:
    """A point on the page, in pixels; `low` and `high` are the ends of its error bar."""

    x: float
    y: float
    low: float
    high: float
    dot: Dot
    label: tuple[float, str] | None  # above or below, and where the text is anchored
    shape: str


@dataclass(frozen=True)
class Line:
    """A polyline on the page, and what it is called."""

    points: str
    name: str
    color: str
    dash: str = ""


@dataclass(frozen=True)
class Chart:
    """Everything of one chart, in pixels."""

    title: str
    above: str
    across: str
    up: str
    xticks: list[tuple[float, str]]
    yticks: list[tuple[float, str]]
    marks: list[Mark] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    level: float | None = None  # of the full head
    remark: str = ""

    def legend(self) -> dict[str, Mark]:
        """Return the families of methods, each with one of its points."""
        return {mark.dot.family: mark for mark in reversed(self.marks)}


@dataclass(frozen=True)
class Axis:
    """Data units to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, here = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (here - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values with their pixels."""
        if self.log:
            powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            values = [m * 10.0**p for p in powers for m in (1, 3)]
        else:
            step = _step((self.high - self.low) / 4)
            values = [k * step for k in range(ceil(self.low / step), floor(self.high / step) + 1)]
        return [(self.at(v), short(v)) for v in values if self.low <= v <= self.high]


def deltas(tables: Iterable[Table]) -> list[Chart]:
    """Return delta to the full head, or the metric itself without one, against parameters."""
    found = [panel for table in tables for panel in panels(table) if panel.points()][:MOST]
    looks = styles(point.row.method for panel in found for point in panel.points())
    charts = []
    for panel in found:
        points = panel.points()
        best = _front(panel)
        dots = [
            Dot(
                p.trained,
                p.value,
                p.sd,
                f"{p.row.setting}: {panel.quantity()} {p.value:.2f}{_spread(p.sd)}, "
                f"{panel.table.cell(p.row, panel.column).text()} {panel.metric}, "
                f"{p.trained:,.0f} parameters trained",
                p.row.run.detail or p.row.run.family,
                p.row.run.family,
                looks[p.row.method],
                p.row.labels in best,
            )
            for p in points
        ]
        level = 0.0 if panel.reference is not None else None
        charts.append(_scatter(panel, dots, "trained parameters", panel.quantity(), level))
    return charts


def _front(panel: Panel) -> set:
    """Return the rows that no setting with fewer parameters beats."""
    found = choices(panel, "params.trainable")
    return {one.row.labels for one in front(found, panel.column.direction != "lower")}


def tradeoffs(tables: Iterable[Table], cost: str) -> list[Chart]:
    """Return the metric against a cost, where at least two settings have it recorded."""
    found = [(panel, choices(panel, cost)) for table in tables for panel in panels(table)]
    found = [(panel, several) for panel, several in found if len(several) > 1][:MOST]
    looks = styles(one.row.method for _, several in found for one in several)
    quantity = QUANTITIES[cost]
    charts = []
    for panel, several in found:
        best = front(several, panel.column.direction != "lower")
        dots = [
            Dot(
                c.cost,
                c.value,
                c.sd,
                f"{c.row.setting}: {panel.metric} {c.value:.2f}{_spread(c.sd)}, "
                f"{quantity.name} {short(c.cost)} {quantity.unit}",
                c.label(),
                c.row.run.family,
                looks[c.row.method],
                c in best,
            )
            for c in several
        ]
        unit = f" ({panel.column.unit})" if panel.column.unit else ""
        charts.append(_scatter(panel, dots, quantity.heading, f"{panel.metric}{unit}", None))
    return charts


def _scatter(panel: Panel, dots: Sequence[Dot], across: str, up: str, level: float | None) -> Chart:
    """Lay points out; those that nothing beats are filled and joined by steps."""
    xs, lows, highs = [d.x for d in dots], [d.y - d.sd for d in dots], [d.y + d.sd for d in dots]
    log = max(xs) > 5 * min(xs)
    x = Axis(min(xs) / 1.6, max(xs) * 1.6, LEFT, WIDTH - RIGHT, True) if log else _linear(
        xs, LEFT, WIDTH - RIGHT)  # fmt: skip
    bounds = [*lows, *highs, *([level] if level is not None else [])]
    y = _linear(bounds, HEIGHT - BOTTOM, TOP)
    marks = _marks(dots, x, y, level)
    best = sorted((m for m in marks if m.dot.filled), key=lambda m: m.x)
    steps = "".join(f" H{m.x} V{m.y}" for m in best[1:])
    line = [Line(f"M{best[0].x} {best[0].y}{steps}", "", "#8a8a8a")] if best else []
    return Chart(
        panel.title(), panel.table.title, across, up, x.ticks(), y.ticks(), marks, line,
        None if level is None else y.at(level), panel.remark(),
    )  # fmt: skip


def _marks(dots: Sequence[Dot], x: Axis, y: Axis, level: float | None) -> list[Mark]:
    """Place the points; a label is left out where it would cover another, a point or the level."""
    taken = [(x.at(d.x) - 5, y.at(d.y) - 5, x.at(d.x) + 5, y.at(d.y) + 5) for d in dots]
    if level is not None:
        taken.append((LEFT, y.at(level) - 1, WIDTH, y.at(level) + 1))
    found = []
    for dot in sorted(dots, key=lambda d: not d.filled):
        px, py = x.at(dot.x), y.at(dot.y)
        width, label = LETTER * len(dot.label), None
        for shift in (-9.0, 16.0):
            left = min(max(px - width / 2, LEFT), WIDTH - width)
            box = (left, py + shift - 8, left + width, py + shift)
            if not any(_meet(box, other) for other in taken) and box[3] < HEIGHT - BOTTOM:
                label = (round(shift, 1), f"{left + width / 2:.1f}")
                taken.append(box)
                break
        ends = (y.at(dot.y - dot.sd), y.at(dot.y + dot.sd))
        shape = MARKS.get(dot.style.marker, "circle")
        found.append(Mark(px, py, *ends, dot, label, shape))
    return found


def lines(
    title: str, above: str, up: str, curves: dict[str, tuple[Style, dict[float, float]]]
) -> Chart:
    """Return curves over epochs."""
    values = [v for _, curve in curves.values() for v in curve.values()]
    epochs = [e for _, curve in curves.values() for e in curve]
    x, y = _linear(epochs, LEFT, WIDTH - RIGHT), _linear(values, HEIGHT - BOTTOM, TOP)
    seen: dict[str, int] = {}
    drawn = []
    for name, (style, curve) in curves.items():
        number = seen[style.color] = seen.get(style.color, -1) + 1
        path = " ".join(f"{x.at(e)},{y.at(v)}" for e, v in sorted(curve.items()))
        last = curve[max(curve)]
        dash = ("", "6 2", "2 2", "8 2 2 2")[number % 4]
        drawn.append(Line(path, f"{name}: {last:.2f} at epoch {max(curve):g}", style.color, dash))
    return Chart(title, above, "epoch", up, x.ticks(), y.ticks(), lines=drawn)


def _linear(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = 0.09 * (high - low) or max(1.0, 0.05 * abs(high))
    return Axis(low - margin, high + margin, start, end)


def _step(least: float) -> float:
    """Return the round number that is at least `least`."""
    power = 10.0 ** floor(log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def short(value: float) -> str:
    """Return 30000 as 30k, and other numbers without needless digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}".replace("-", "−")


def _spread(sd: float) -> str:
    return f" ± {sd:.2f}" if sd else ""

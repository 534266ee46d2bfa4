"""The charts of the report: those of the figures, each panel an element of the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segsweep.results.cells import Table
from segsweep.results.charts.canvas import MOST
from segsweep.results.charts.embed import svg
from segsweep.results.charts.figures import priced, styles_of
from segsweep.results.charts.lines import curve_chart, curves
from segsweep.results.charts.panels import Panel, panels
from segsweep.results.charts.scatter import delta_chart, tradeoff_chart
from segsweep.results.charts.shift import shift_chart
from segsweep.results.frame import unwatched
from segsweep.results.wording import QUANTITIES, Values

COSTS = ("delta.bytes", "bench.median_ms", "memory.peak_cuda_mib")
SIZE = (3.4, 2.8)  # inches, of a panel beside others


@dataclass(frozen=True)
class ChartGroup:
    """Charts as SVG under one heading, and what explains them: only what is drawn."""

    caption: str
    svgs: list[str]


Groups = dict[str, ChartGroup]
"""By heading."""


@unwatched()
def groups(tables: list[Table], runs: list[Values], directories: Path) -> Groups:
    """Return all charts that there are numbers for; `directories` holds the folders of the runs."""
    looks = styles_of(tables)
    trained = [panel for table in tables for panel in panels(table) if panel.points()]
    charts = {"Against trained parameters": delta_chart(trained, looks)}
    captions = {"Against trained parameters": _delta(trained)}
    for cost in COSTS:
        name = QUANTITIES[cost].name
        heading = f"Against {name if name[:2].isupper() else name.lower()}"
        charts[heading] = tradeoff_chart(priced(tables, cost), cost, looks)
        captions[heading] = _tradeoff(priced(tables, cost), cost)
    captions["Training curves"] = ["each validation"]
    charts["Training curves"] = curve_chart(curves(runs, directories))
    return {
        name: ChartGroup(
            _sentences([*captions[name], *chart.remarks]),
            [svg(panel, f"{name}, {i}") for i, panel in enumerate(chart.apart(SIZE)[:MOST], 1)],
        )
        for name, chart in charts.items()
        if chart.painters
    }


def shift(tables: list[Table]) -> ChartGroup:
    """Return the charts of runs that were judged on other data."""
    chart = shift_chart(tables)
    parts = ["Left of the line: the data of training", *chart.remarks] if tables else []
    drawn = chart.apart(SIZE)[:MOST]
    return ChartGroup(
        _sentences(parts), [svg(panel, f"Other data, {i}") for i, panel in enumerate(drawn, 1)]
    )


def _sentences(parts: list[str]) -> str:
    heads = (part[:1].upper() if part.isascii() else part[:1] for part in parts)  # δ stays small
    return " ".join(f"{head}{part[1:]}." for head, part in zip(heads, parts, strict=True))


def _delta(drawn: list[Panel]) -> list[str]:
    """Return what explains the charts of deltas beside their remarks."""
    relative = any(panel.reference for panel in drawn)
    base = any(panel.points(trained=False) for panel in drawn)
    odd = any(point.unstable for panel in drawn for point in panel.points())
    return [
        *(["δ: difference to the full head, the black line, in percent of it"] * relative),
        *(["dotted line or arrow: the frozen base"] * base),
        *(["crossed out: unstable over seeds"] * odd),
    ]


def _tradeoff(drawn: list[Panel], cost: str) -> list[str]:
    """Return what explains the charts of a cost beside their remarks."""
    points = [(panel, panel.priced(cost)) for panel in drawn]
    fronts = [(panel.front(own), own) for panel, own in points]
    near = any(front.near for front, _ in fronts)
    steady = [sum(not p.unstable for p in own) for _, own in fronts]
    behind = any(
        len(front.best) + len(front.near) < number
        for (front, _), number in zip(fronts, steady, strict=True)
        if front.best
    )
    return [
        *(["filled, joined by steps: no point of equal or less cost is better"]
          * any(front.best for front, _ in fronts)),
        *(["pale, in the shade: as far as the seeds tell, it may be as good as these"] * near),
        *(["hollow: a point of equal or less cost is as good or better"] * behind),
        *(["dotted line or arrow: the frozen base, which costs nothing here"]
          * any(panel.free(cost) for panel in drawn)),
        *(["crossed out: unstable over seeds, never joined"]
          * any(p.unstable for _, own in points for p in own)),
    ]  # fmt: skip


def short(value: float) -> str:
    """Return 30000 as 30k, and other numbers without needless digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}".replace("-", "−")

"""The charts of the report: those of the figures, each panel an element of the page."""

from __future__ import annotations

from pathlib import Path

from segsweep.results.cells import Table
from segsweep.results.charts.canvas import MOST
from segsweep.results.charts.embed import svg
from segsweep.results.charts.figures import priced, styles_of
from segsweep.results.charts.lines import curve_chart, curves
from segsweep.results.charts.panels import panels
from segsweep.results.charts.scatter import delta_chart, tradeoff_chart
from segsweep.results.frame import unwatched
from segsweep.results.wording import QUANTITIES, Values

COSTS = ("delta.bytes", "bench.median_ms", "memory.peak_cuda_mib")
SIZE = (3.4, 2.8)  # inches, of a panel beside others

Groups = dict[str, list[str]]
"""Charts as SVG by the heading of their group."""


@unwatched()
def groups(tables: list[Table], runs: list[Values], directories: Path) -> Groups:
    """Return all charts that there are numbers for; `directories` holds the folders of the runs."""
    looks = styles_of(tables)
    trained = [panel for table in tables for panel in panels(table) if panel.points()]
    charts = {"Against trained parameters": delta_chart(trained, looks)}
    for cost in COSTS:
        name = QUANTITIES[cost].name
        heading = f"Against {name if name[:2].isupper() else name.lower()}"
        charts[heading] = tradeoff_chart(priced(tables, cost), cost, looks)
    charts["Training curves"] = curve_chart(curves(runs, directories))
    return {
        name: [svg(panel, f"{name}, {i}") for i, panel in enumerate(chart.apart(SIZE)[:MOST], 1)]
        for name, chart in charts.items()
        if chart.painters
    }


def short(value: float) -> str:
    """Return 30000 as 30k, and other numbers without needless digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}".replace("-", "−")

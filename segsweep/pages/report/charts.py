"""The charts of the report: those of the figures, each panel an element of the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segsweep.results.cells import Table
from segsweep.results.charts.canvas import MOST, Chart, styles
from segsweep.results.charts.embed import svg
from segsweep.results.charts.figures import priced
from segsweep.results.charts.lines import curve_chart, curves
from segsweep.results.charts.panels import panels
from segsweep.results.charts.scatter import delta_chart, tradeoff_chart
from segsweep.results.wording import QUANTITIES, Values

COSTS = ("delta.bytes", "bench.median_ms", "memory.peak_cuda_mib")
OPTIONS: dict[str, Any] = {"size": (3.4, 2.8)}  # inches, of a panel beside others

Groups = dict[str, list[str]]
"""Charts as SVG by the heading of their group."""


def groups(tables: list[Table], runs: list[Values], directories: Path) -> Groups:
    """Return all charts that there are numbers for; `directories` holds the folders of the runs."""
    looks = styles(row.run for table in tables for row in table.rows)
    trained = [panel for table in tables for panel in panels(table) if panel.points()]
    charts = {"Against trained parameters": [delta_chart([p], looks, **OPTIONS) for p in trained]}
    for cost in COSTS:
        name = QUANTITIES[cost].name
        heading = f"Against {name if name[:2].isupper() else name.lower()}"
        costly = priced(tables, cost)
        charts[heading] = [tradeoff_chart([panel], cost, looks, **OPTIONS) for panel in costly]
    drawable = curves(runs, directories)
    looks = styles(run for _, lines in drawable for run, _ in lines.values())
    charts["Training curves"] = [curve_chart([lines], looks, **OPTIONS) for lines in drawable]
    return {name: _drawn(name, several[:MOST]) for name, several in charts.items() if several}


def _drawn(group: str, charts: Iterable[Chart]) -> list[str]:
    return [svg(chart, f"{group}, {number}") for number, chart in enumerate(charts, start=1)]


def short(value: float) -> str:
    """Return 30000 as 30k, and other numbers without needless digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}".replace("-", "−")

"""How a Pareto front is drawn: its steps, what noise hides below them, and who stands where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segsweep.results.charts.canvas import GREY, Style, handle
from segsweep.results.charts.panels import Front, Panel

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

ON, NEAR, BEHIND = "on the Pareto front", "not told from the front", "no better than a cheaper one"
REACH = "within noise of the front"
LIGHT = "#dde7f0"


def steps(ax: Axes, panel: Panel, front: Front, last: float) -> dict[str, Artist]:
    """Draw the steps of a front up to the last cost, and below them what noise hides."""
    best, sign = front.best, panel.column.sign
    if not best:
        return {}
    x, y = [*(p.x for p in best), last], [*(p.value for p in best), best[-1].value]
    ax.step(x, y, where="post", color=GREY, lw=1.0)
    shown: dict[str, Artist] = {}
    for point, end, reach in zip(best, x[1:], front.reaches, strict=False):
        low = point.value - sign * reach
        patch = ax.fill_between([point.x, end], low, point.value, color=LIGHT, lw=0, zorder=0.5)
        shown[REACH] = patch
    return shown


def example(state: str) -> Artist:
    """Return what stands in a legend for a place beside the front."""
    face = {ON: GREY, NEAR: pale(GREY), BEHIND: "white"}[state]
    artist = handle(Style(GREY, "o"), line="-" if state == ON else "none")
    artist.set(markerfacecolor=face)
    return artist


def pale(color: str) -> str:
    """Return a colour mixed with white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.4 * (255 - part)):02x}" for part in parts)

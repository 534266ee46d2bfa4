"""Charts inside a page: an SVG file of matplotlib becomes a small element of the page.

Its ids stand for nothing outside, text stays text in the page's own letters, and a point says its
tip to the pointer, the keyboard and readers of screens.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from segsweep.results.charts.canvas import TIP, Chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

ROOT = "stroke-linejoin:round;font-family:system-ui,sans-serif"
DECIMAL = re.compile(r"(-?\d+\.\d)\d+")
SPACE = re.compile(r"\s*([MLCQHVz,;:])\s*|\s+")


def svg(chart: Chart, name: str) -> str:
    """Return a chart as an element of a page; `name` tells it from others there."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with chart.painted() as (figure, panels):
        for ax, painted in panels:
            for label in ax.texts:
                label.set_path_effects([])  # which make outlines of text; the page has its own
            for tip, points in painted.tips:
                _mark(ax, tip, points)
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    inside = "".join(map(_written, root))
    return (
        f'<svg viewBox="{root.get("viewBox")}" role="group" aria-label="{escape(name)}" '
        f'style="{ROOT}">{inside}</svg>'
    )


def _mark(ax: Axes, tip: str, points: Sequence[tuple[float, float]]) -> None:
    """Lay over points what is not seen and can be pointed at."""
    from matplotlib.lines import Line2D

    x, y = zip(*points, strict=True)
    hit = Line2D(x, y, marker="o", markersize=10, linewidth=6, alpha=0, zorder=9)
    hit.set_gid(TIP + tip)
    ax.add_line(hit)


def _written(node: ElementTree.Element) -> str:
    """Return a node and what is in it, without what a page has no use for."""
    tag = node.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return ""
    text = escape(node.text or "", quote=False) if tag == "text" else ""
    inside = text + "".join(map(_written, node))
    attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
    if tag == "g":
        attributes = _of_group(attributes)
    if not inside and tag in ("g", "defs"):
        return ""
    if not attributes and tag == "g":
        return inside
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    written = "".join(f' {key}="{_short(key, v)}"' for key, v in attributes.items())
    return f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>"


def _of_group(attributes: dict[str, str]) -> dict[str, str]:
    """Replace the id of a group by its tip."""
    name = attributes.pop("id", "")
    if name.startswith(TIP):
        tip = name.removeprefix(TIP)
        attributes |= {"tabindex": "0", "role": "img", "aria-label": tip, "data-tip": tip}
    return attributes


def _short(key: str, value: str) -> str:
    """Return an attribute without needless digits, spaces and fonts."""
    if key in ("aria-label", "data-tip"):
        return escape(value)
    if key in ("d", "x", "y", "transform", "style", "width", "height"):
        value = DECIMAL.sub(r"\1", value)
    if key == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    if key in ("d", "style"):
        value = SPACE.sub(lambda space: space[1] or " ", value).strip()
    return value

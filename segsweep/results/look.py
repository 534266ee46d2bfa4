"""How all figures look, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#6b6b6b"
DPI = 200  # of pictures made of pixels
LOOK: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # else every draw looks for ticks above the axes to step aside for
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "segsweep",  # equal records give an equal file
}


def settle(figure: Figure) -> None:
    """Fix sizes and places of the axes: they are found once, for labels and for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def save(figure: Figure, stem: Path) -> Iterator[Path]:
    """Write `stem`.png, .svg and .pdf, the same bytes for the same figure; yield their paths.

    Canvases are told to print rather than the figure to save itself, which draws everything twice.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stem.parent.mkdir(parents=True, exist_ok=True)
    settle(figure)
    figure.set_dpi(DPI)
    paths = {suffix: stem.parent / f"{stem.name}{suffix}" for suffix in (".png", ".svg", ".pdf")}
    FigureCanvasAgg(figure).print_png(paths[".png"], metadata={"Software": None})
    FigureCanvasSVG(figure).print_svg(paths[".svg"], metadata={"Date": None})
    FigureCanvasPdf(figure).print_pdf(paths[".pdf"], metadata={"CreationDate": None})
    yield from paths.values()

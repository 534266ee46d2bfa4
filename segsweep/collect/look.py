"""How all figures look, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#6b6b6b"
LOOK: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "segsweep",  # equal records give an equal file
}


def save(figure: Figure, stem: Path) -> Iterator[Path]:
    """Write `stem`.png, .svg and .pdf, the same bytes for the same figure; yield their paths."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    stem.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # found once, for all formats
    told = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    for suffix, metadata in told.items():
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=200, metadata=metadata)
        yield path

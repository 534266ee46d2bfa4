"""What the figures of runs share: styles of methods, grids of panels, legends.

Shapes and dashes tell methods apart without colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from segsweep.results.look import GREY, LOOK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side
MOST = 12  # panels of a figure


@dataclass(frozen=True)
class Style:
    """How a method is drawn; shapes and dashes tell it apart without colour, too."""

    color: str
    marker: str
    line: Any = "none"


STYLES = {
    "frozen": Style(GREY, "x"),
    "full_head": Style("#111111", "s"),
    "decoder_only": Style(GREY, "D"),
    "embeddings_only": Style(GREY, "v"),
    "adapter": Style("#0b5fa5", "o", "-"),
    "lora": Style("#e07b00", "^", "--"),
}
MORE_STYLES = [
    Style("#2a9d6f", "P", "-."),
    Style("#a23b72", "X", ":"),
    Style("#7a5cc4", "p", "-"),
    Style("#9c6b30", "h", "--"),
]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for every method; those that have none of their own take turns."""
    others = sorted({*methods} - {*STYLES})
    return STYLES | {m: MORE_STYLES[i % len(MORE_STYLES)] for i, m in enumerate(others)}


@contextmanager
def grid(
    panels: int, size: tuple[float, float] = (3.7, 3.0)
) -> Iterator[tuple[Figure, list[Axes], int]]:
    """Give a figure with that many axes (at most 12), and how many stand side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = min(panels, MOST)
    width = 2 if panels == 4 else min(panels, COLUMNS)
    height = ceil(panels / width)
    with matplotlib.rc_context(LOOK):
        whole = (0.4 + size[0] * width, 0.5 + size[1] * height)
        figure = Figure(figsize=whole, layout="constrained")
        axes = list(figure.subplots(height, width, squeeze=False).flat)
        for ax in axes[panels:]:
            ax.remove()
        yield figure, axes[:panels], width


def head(ax: Axes, title: str, above: str) -> None:
    """Write a panel's title, and in grey above it the model."""
    ax.set_title(title, loc="left")
    text = ax.annotate(above, (0, 1), (0, 18), "axes fraction", "offset points")
    text.set(color=GREY, fontsize=7)


def say(ax: Axes, text: str, height: float) -> None:
    """Write a remark into a panel."""
    ax.text(
        0.5, height, text, transform=ax.transAxes, ha="center", va="top", color=GREY, style="italic"
    )


def legend(
    figure: Figure, families: dict[str, Style], width: int, remarks: Iterable[str] = ()
) -> None:
    """Explain the styles below all panels, and what else is drawn."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=s.color, marker=s.marker, linestyle=s.line, markersize=5.5, label=name)
        for name, s in families.items()
    ]
    handles += [Line2D([], [], linestyle="none", label=remark) for remark in remarks]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2 * width, frameon=False)


def left_out(panels: int) -> list[str]:
    """Return how many panels had no room."""
    return [f"{panels - MOST} more in the tables"] if panels > MOST else []

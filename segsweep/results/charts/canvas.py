"""The one engine of charts: panels on a grid with a common legend, as files or inside a page.

Shapes and dashes tell methods apart without colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from segsweep.base.files import write_atomically
from segsweep.results.settings import LabelledRun
from segsweep.results.wording import elided, published_place

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segsweep.results.charts.labels import Label

BLACK, GREY = "#111111", "#6b6b6b"
COLUMNS = 3  # panels side by side
MOST = 12  # panels of a figure
DPI = 200  # of pictures made of pixels
LETTER, HANDLE = 4.4, 38.0  # widths in a legend, in typographic points
LEGEND, LINE = 0.5, 0.16  # inches: what a figure has for its legend, a line of it
TITLE, ABOVE = 42, 52  # letters of a panel's title, and of the smaller line above it
TIP = "tip:"  # what the id of something begins with that says more to the pointer
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
BAR: dict[str, Any] = {"capsize": 2, "elinewidth": 0.8}  # of standard deviations


@dataclass(frozen=True)
class Style:
    """How a method is drawn; shapes and dashes tell it apart without colour, too."""

    color: str
    marker: str
    line: Any = "none"


REFERENCE = Style(BLACK, "s")
SIZED = [
    Style("#2a9d6f", "P", "-."),
    Style("#e07b00", "^", "--"),
    Style("#a23b72", "X", ":"),
    Style("#0b5fa5", "o", "-"),
    Style("#7a5cc4", "p", "-"),
    Style("#9c6b30", "h", "--"),
]
SINGLE = [Style(GREY, marker) for marker in "Dv<>d*"]


def styles(runs: Iterable[LabelledRun]) -> dict[str, Style]:
    """Return a style for every method, those of one size in grey, those of several in colours.

    A method has the one of its place in the studies' tables, or the next that is free, so that it
    looks alike in most figures. The reference is always black squares.
    """
    runs = list(runs)
    references = {run.method for run in runs if run.reference}
    sized = {run.method for run in runs if run.detail} - references
    single = {run.method for run in runs} - sized - references
    return _turns(sized, SIZED) | _turns(single, SINGLE) | dict.fromkeys(references, REFERENCE)


def _turns(methods: Iterable[str], cycle: list[Style]) -> dict[str, Style]:
    """Let methods take styles in turn, which start again when all are taken."""
    chosen: dict[str, Style] = {}
    for place, method in sorted((published_place(method), method) for method in methods):
        start = place % len(cycle)
        chosen[method] = min(cycle[start:] + cycle[:start], key=[*chosen.values()].count)
    return chosen


@dataclass
class Painted:
    """What a painted panel leaves to its figure.

    `handles` are explained in the legend, and so are `states`, but on a page by its own words;
    `labels` are placed clear of `lines`, polylines in data units; a page says `tips` where the
    pointer is on their points. `heads` are titles that the panel had to elide.
    """

    handles: dict[str, Artist] = field(default_factory=dict)
    states: dict[str, Artist] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    lines: list[Sequence[tuple[float, float]]] = field(default_factory=list)
    tips: list[tuple[str, Sequence[tuple[float, float]]]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Panels that share a legend: what paints each, and what else the legend says.

    `alone` are charts without remarks and states, which a page says itself.
    """

    painters: Sequence[Callable[[Axes], Painted]]
    remarks: Sequence[str] = ()
    size: tuple[float, float] = (3.7, 3.0)  # of a panel, inches
    notes: bool = True  # remarks, states and titles in full
    across: int = 0  # panels side by side; 0: as many as look well

    def apart(self, size: tuple[float, float]) -> list[Chart]:
        """Return a chart for each panel, as for a page, which says the remarks itself."""
        alone = replace(self, notes=False, size=size, across=1)
        return [replace(alone, painters=[painter]) for painter in self.painters]

    def save(self, stem: Path) -> list[Path]:
        """Write `stem`.png, .svg and .pdf; return their paths, none without panels."""
        if not self.painters:
            return []
        with self.painted() as (figure, _):
            return list(save(figure, stem))

    @contextmanager
    def painted(self) -> Iterator[tuple[Figure, list[tuple[Axes, Painted]]]]:
        """Paint at most 12 panels, the legend below them, then the labels."""
        from segsweep.results.charts.labels import place

        count = min(len(self.painters), MOST)
        with _grid(count, self.size, self.across) as (figure, axes, width):
            panels = [(ax, paint(ax)) for ax, paint in zip(axes, self.painters, strict=False)]
            handles = {k: v for _, painted in panels for k, v in painted.handles.items()}
            if self.notes:
                handles |= {k: v for _, painted in panels for k, v in painted.states.items()}
            _legend(figure, handles, self._notes(panels) if self.notes else [], 2 * width)
            settle(figure)
            for ax, painted in panels:
                if painted.labels:
                    place(ax, painted.labels, painted.lines)
            yield figure, panels

    def _notes(self, panels: list[tuple[Axes, Painted]]) -> list[str]:
        """Return the remarks, what is left out, and in full what panels had to elide."""
        more = len(self.painters) - MOST
        heads = dict.fromkeys(head for _, painted in panels for head in painted.heads)
        return [*self.remarks, *([f"{more} more in the tables"] if more > 0 else []), *heads]


@contextmanager
def _grid(
    panels: int, size: tuple[float, float], across: int
) -> Iterator[tuple[Figure, list[Axes], int]]:
    """Give a figure with that many axes, and how many stand side by side."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width = across or (2 if panels == 4 else min(panels, COLUMNS))
    height = ceil(panels / width)
    whole = (0.4 + size[0] * width, LEGEND + size[1] * height)
    with rc_context(LOOK):
        figure = Figure(figsize=whole, layout="constrained")
        axes = list(figure.subplots(height, width, squeeze=False).flat)
        for ax in axes[panels:]:
            ax.remove()
        yield figure, axes[:panels], width


def _legend(
    figure: Figure, handles: dict[str, Artist], remarks: Sequence[str], columns: int
) -> None:
    """Explain below all panels what is drawn, in as many columns as there is room for.

    Long texts are wrapped, and the figure grows by their lines, so that panels keep their size.
    """
    from matplotlib.lines import Line2D

    room = 72 * figure.get_figwidth()
    letters = int(0.85 * (room - HANDLE) / LETTER)  # some are wider
    entries = [(elided(name, letters), shown) for name, shown in handles.items()]
    entries += [(fill(text, letters), Line2D([], [], linestyle="none")) for text in remarks]
    texts = [text for text, _ in entries]
    columns = 1 if any("\n" in text for text in texts) else columns
    columns = next((n for n in range(columns, 1, -1) if _width(texts, n) <= room), 1)
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "handlelength": 2.8}
    if entries:
        figure.legend([shown for _, shown in entries], texts, ncols=columns, **place)
    lines = ceil(len(texts) / columns) + sum(text.count("\n") for text in texts)
    figure.set_figheight(figure.get_figheight() + max(0.0, LINE * lines - LEGEND))


def _width(texts: Sequence[str], columns: int) -> float:
    """Return about how wide a legend is, in typographic points: it is filled column by column."""
    height, taller = divmod(len(texts), columns)
    starts = [i * height + min(i, taller) for i in range(columns + 1)]
    longest = (max(map(len, texts[a:b]), default=0) for a, b in pairwise(starts))
    return sum(LETTER * letters + HANDLE for letters in longest)


def handle(style: Style, line: Any = None) -> Artist:
    """Return what stands in a legend for a style, by default with its own line."""
    from matplotlib.lines import Line2D

    look = {"color": style.color, "marker": style.marker, "linestyle": line or style.line}
    return Line2D([], [], **look, markersize=5.5)


def head(ax: Axes, title: str, above: str) -> Painted:
    """Write a panel's title, and in grey above it the model; what is too long is elided."""
    texts = [
        ax.set_title(elided(title, TITLE), loc="left"),
        ax.annotate(elided(above, ABOVE), (0, 1), (0, 18), "axes fraction", "offset points"),
    ]
    texts[1].set(color=GREY, fontsize=7)
    painted = Painted()
    for text, whole in zip(texts, (title, above), strict=True):
        if text.get_text() != whole:
            text.set_gid(TIP + whole)
            painted.heads.append(whole)
    return painted


def remark(ax: Axes, text: str, height: float) -> None:
    """Write a remark into a panel."""
    look: dict[str, Any] = {"ha": "center", "va": "top", "color": GREY, "style": "italic"}
    ax.text(0.5, height, text, transform=ax.transAxes, **look)


def settle(figure: Figure) -> None:
    """Fix sizes and places of the axes: they are found once, for labels and for all formats.

    Axes of a fixed aspect, those of pictures, shrink when they are placed: room for their titles is
    found from there.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        if any(ax.get_aspect() != "auto" for ax in figure.axes):
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
    forms = {
        "png": partial(FigureCanvasAgg(figure).print_png, metadata={"Software": None}),
        "svg": partial(FigureCanvasSVG(figure).print_svg, metadata={"Date": None}),
        "pdf": partial(FigureCanvasPdf(figure).print_pdf, metadata={"CreationDate": None}),
    }
    for suffix, draw in forms.items():
        path = stem.parent / f"{stem.name}.{suffix}"
        write_atomically(path, draw)
        yield path

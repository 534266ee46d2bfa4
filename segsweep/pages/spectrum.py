"""Lists and pictures of singular values: docs/analysis.md says what each number means.

OUT/OF.csv                      a row for each matrix of each run; OF is update or weight
OUT/OF.png, .svg, .pdf          histograms, a panel for each run and layer
OUT/OF_mass.png, .svg, .pdf     how much of the squared mass a rank holds, a panel for each run
OUT/RUN/OF.json                 all singular values of a run
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segsweep.analysis.spectrum import BINS, SHARE, Spectra, Spectrum
from segsweep.base.csv_files import as_csv
from segsweep.base.errors import UserError
from segsweep.base.files import write_json, write_text
from segsweep.results.charts.canvas import BLACK, COLUMNS, GREY, SIZED, Chart, Painted, Style, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

SAME = ("run", "of", "of layers")  # in all rows of a run
HEADS = (
    *(*SAME, "layer", "weight", "part", "rows", "columns", "trained"),
    *("largest", "norm", "effective rank", "stable rank", f"rank of {SHARE:.0%}"),
)
UNTOLD = (*SAME, "weight", "trained")  # in the terminal
PLOTTED = {
    "update": "Update: tuned weights minus those that the run started from. Figure 2 of the paper "
    "on VFM-Adapter plots the weights themselves: of=weight",
    "weight": "Weights themselves, as in Figure 2 of the paper on VFM-Adapter. Whether tuning is "
    "low-rank is a matter of the update: of=update",
}
HEIGHTS = {  # of the bars of a histogram: of an update nearly all values may be in the first one
    "update": (np.log1p, "number in a bin, on a logarithmic scale, to the highest of each"),
    "weight": (np.asarray, "number in a bin (density), to the highest of each"),
}
RIDGE = 0.62  # height of a histogram where the next one stands 1 higher


def rows(found: Sequence[Spectra]) -> list[list[Any]]:
    """Return a row for each matrix, heads first."""
    lines: list[list[Any]] = [[*HEADS]]
    for one in found:
        for matrix in one.matrices:
            numbers = matrix.effective_rank, matrix.stable_rank, matrix.rank()
            sizes = float(matrix.values[0]), float((matrix.values**2).sum() ** 0.5)
            where = one.run, one.of, one.depth, matrix.layer, matrix.weight, matrix.part
            lines.append([*where, *matrix.shape, matrix.trained, *sizes, *numbers])
    return lines


def table(one: Spectra) -> Table:
    """Return the rows of a run to be printed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    first, last = one.matrices[0].weight, one.matrices[-1].weight.partition(":")[0]
    title = Text(f"{one.of} of {one.run}: {first} ... {last}, of {one.depth} layers")
    grid = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    heads, *lines = rows([one])
    told = [k for k, name in enumerate(heads) if name not in UNTOLD]
    for k in told:
        grid.add_column(heads[k], justify="left" if heads[k] == "part" else "right")
    for line in lines:
        grid.add_row(*("-" if line[k] is None else _written(line[k]) for k in told))
    return grid


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def remarks(found: Sequence[Spectra]) -> list[str]:
    """Say what has to be known of the numbers."""
    texts = [PLOTTED[found[0].of]]
    if drawn := [one.run for one in found if one.start.startswith("weights: random")]:
        texts.append(f"Started from random weights, drawn with the seed: {', '.join(drawn)}")
    for one in found:
        if one.places:
            ends = " ... ".join(dict.fromkeys((one.places[0], one.places[-1])))
            what = (
                f"what is added at {len(one.places)} places is no weight, and is left out: {ends}"
            )
            texts.append(f"{one.run}: {what}")
    return texts


def write(found: Sequence[Spectra], out: Path) -> Iterator[Path]:
    """Write all files; yield their paths. Raises UserError where a folder cannot be made."""
    of = found[0].of
    try:
        for one in found:
            (out / one.run).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    write_text(out / f"{of}.csv", as_csv(rows(found)))
    yield out / f"{of}.csv"
    for one in found:
        path = out / one.run / f"{of}.json"
        matrices = [asdict(matrix) | {"values": matrix.values.tolist()} for matrix in one.matrices]
        write_json(path, vars(one) | {"matrices": matrices})
        yield path
    yield from histograms(found).save(out / of)
    yield from masses(found).save(out / f"{of}_mass")


def histograms(found: Sequence[Spectra]) -> Chart:
    """Draw histograms of singular values, a panel for each layer of each run, in its row."""
    painters = [partial(_histograms, one, layer) for one in found for layer in one.layers()]
    across = max(len(one.layers()) for one in found)
    about = (
        f"Each histogram: {BINS} bins from 0, {HEIGHTS[found[0].of][1]}; above it the rank that "
        f"holds {SHARE:.0%} of the squared mass"
    )
    across = across if across <= COLUMNS else 0
    return Chart(painters, [about, *remarks(found)], (3.3, 2.7), across=across)


def _histograms(one: Spectra, layer: int, ax: Axes) -> Painted:
    matrices = one.layers()[layer]
    highest = max(float(matrix.values[0]) for matrix in matrices) or 1.0
    looks = _looks([matrix.part for matrix in one.matrices])
    for place, matrix in enumerate(reversed(matrices)):
        _ridge(ax, place, matrix, highest, one.of, looks[matrix.part].color)
    middles = np.arange(len(matrices)) + RIDGE / 2
    ax.set_yticks(middles, [matrix.part for matrix in reversed(matrices)])
    ax.grid(visible=False, axis="y")
    ax.set(xlabel="singular value", xlim=(0, highest), ylim=(-0.05, len(matrices)))
    ax.tick_params(axis="y", length=0)
    return head(ax, f"Layer {layer} of {one.depth}", one.run)


def _ridge(ax: Axes, place: int, matrix: Spectrum, highest: float, of: str, color: str) -> None:
    """Draw one histogram at its height, its numbers above."""
    text = "unchanged"
    if matrix.values.any():
        counts, edges = matrix.histogram(highest)
        heights = HEIGHTS[of][0](counts)
        tops = place + RIDGE * heights / heights.max()
        ax.stairs(tops, edges, baseline=place, fill=True, color=color, alpha=0.35)
        ax.stairs(tops, edges, baseline=place, color=color, linewidth=0.7)
        text = (
            f"{SHARE:.0%} in rank {matrix.rank()} of {len(matrix.values)}, effective rank "
            f"{matrix.effective_rank:.3g}"
        )
    look: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 6.5, "color": GREY}
    ax.text(highest, place + RIDGE, f"{text} ", **look)


def masses(found: Sequence[Spectra]) -> Chart:
    """Draw how much of the squared mass a rank holds, a panel for each run."""
    painters = [partial(mass_panel, one) for one in found]
    return Chart(painters, ["First matrix of each layer", *remarks(found)])


def mass_panel(one: Spectra, ax: Axes) -> Painted:
    """Draw it of one run."""
    painted = head(ax, one.of.capitalize(), one.run)
    looks = _looks([str(layer) for layer in one.layers()])
    highest = 1
    for layer, (matrix, *_) in one.layers().items():
        if matrix.values.any():
            style, count = looks[str(layer)], len(matrix.values)
            look: dict[str, Any] = {"color": style.color, "linestyle": style.line}
            (line,) = ax.plot(range(1, count + 1), 100 * matrix.held(), **look)
            painted.handles[f"layer {layer}, {matrix.part}"] = line
            highest = max(highest, count)
    ticks = [2**k for k in range(highest.bit_length())]
    ax.axhline(100 * SHARE, color=GREY, linestyle=":", linewidth=0.8)
    ax.set(xlabel="rank", ylabel="squared mass held, %", xscale="log", ylim=(0, 102))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    return painted


def _looks(names: Sequence[str]) -> dict[str, Style]:
    """Return how each is drawn, the first in black."""
    cycle = [Style(BLACK, "", "-"), *SIZED]
    return {name: cycle[k % len(cycle)] for k, name in enumerate(dict.fromkeys(names))}

"""All figures of runs, ours or published: which are drawn, from which numbers, and where.

delta_vs_params   delta to the full head (equation 11) against trained parameters
size_*            the same against one option of a method: rank, repeats, alpha, ...
pareto            the metric against trained parameters, and what nothing beats
latency, checkpoint, gpu_memory     the same against what else a setting costs
curves            the metric against epochs (ours only)

They are drawn in processes of their own: this takes longer than all tables and needs only them. The
processes come from one that imports matplotlib while the records are still being read.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from segsweep.results.cells import Cell, Table, mean
from segsweep.results.charts.canvas import Style, styles
from segsweep.results.charts.lines import curve_chart, curves, size_chart, sizes
from segsweep.results.charts.panels import Panel, panels
from segsweep.results.charts.scatter import delta_chart, tradeoff_chart
from segsweep.results.pivot import ORIGINS
from segsweep.results.spec import load
from segsweep.results.tables import build
from segsweep.results.wording import Values, published, table_of

COSTS = {
    "pareto": "params.trainable",
    "latency": "bench.median_ms",
    "checkpoint": "delta.bytes",
    "gpu_memory": "memory.peak_cuda_mib",
}

SAID = {"reported": "{}, as printed", "ours": "{}, ours"}
"""What a model is called in figures that have numbers of both origins."""

Drawing = Callable[[], list[Path]]
"""Draws one figure and returns its files; it has to travel, as `functools.partial` does."""

MOST = 4  # processes; there are hardly more figures that take long
FORMATS = [f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")]


def delta_figure(tables: list[Table], stem: Path) -> list[Path]:
    """Draw delta to the full head against trained parameters; return the files written."""
    every = [panel for table in tables for panel in panels(table)]
    drawable = [panel for panel in every if panel.points()] or every[:1]
    return delta_chart(drawable, styles_of(tables)).save(stem)


def tradeoff_figure(tables: list[Table], cost: str, stem: Path) -> list[Path]:
    """Draw the metric against a cost; return the files written.

    None where fewer than two settings have that cost recorded.
    """
    return tradeoff_chart(priced(tables, cost), cost, styles_of(tables)).save(stem)


def priced(tables: list[Table], cost: str) -> list[Panel]:
    """Return the panels in which at least two settings have a cost recorded."""
    every = [panel for table in tables for panel in panels(table)]
    return [panel for panel in every if len(panel.priced(cost)) > 1]


def styles_of(tables: Iterable[Table]) -> dict[str, Style]:
    """Return a style for every method in some tables."""
    return styles(row.run for table in tables for row in table.rows)


def of_runs(tables: list[Table], folder: Path, *directories: Path) -> Iterator[Drawing]:
    """Yield every figure that the ablation tables may have numbers for.

    `directories` are the folders with the run directories, where the curves are.
    """
    light = [_light(table) for table in tables]
    yield partial(delta_figure, light, folder / "delta_vs_params")
    yield from _common(light, folder, "")
    runs = [run for table in tables for run in table.runs]
    yield partial(curve_chart(curves(runs, *directories)).save, folder / "curves")


def of_reported(runs: list[Values], folder: Path) -> Iterator[Drawing]:
    """Yield the figures of the study of adapters and LoRA from its tables 2, 3 and A1.

    Its Figure 6 is the mean panel of SEEM, its Figure 7 that of Mask DINO with a ResNet-50, without
    Cityscapes.
    """
    yield from beside_printed(runs, folder)
    cells = [run for run in runs if table_of(run) == "000 2a"]
    spec = replace(load("ablation"), reported="000 2a")
    tables = [_light(table) for table in build(spec, _timed(cells, runs), ("reported",))]
    alpha = build(replace(spec, reported="000 A1"), runs, ("reported",))
    families = [family for table in alpha for family in sizes(_light(table))]
    yield partial(size_chart(families).save, folder / "peft_alpha")
    yield from _common(tables, folder, "peft_")


def beside_printed(runs: list[Values], folder: Path) -> Iterator[Drawing]:
    """Yield the published figures of delta; those of which there are runs of ours have both.

    Each is compared with its own full head: panels as printed, then panels of ours.
    """
    spec = replace(load("ablation"), reported="000 2a")
    origins = [origin for origin in ORIGINS if any(run["origin"] == origin for run in runs)]
    for name, model in published("figure").items():
        about = [run for run in runs if run["config.model.name"] == model.word]
        built = {origin: [*map(_light, build(spec, about, (origin,)))] for origin in origins}
        if built and all(built.values()):
            told: Mapping[str, str] = SAID if len(built) > 1 else dict.fromkeys(ORIGINS, "{}")
            tables = [replace(t, title=told[o].format(t.title)) for o in built for t in built[o]]
            yield partial(delta_figure, tables, folder / name)


def draw_published(runs: list[Values], folder: Path) -> list[Path]:
    """Draw the figures of the study one after the other; return the files written."""
    return [path for drawing in of_reported(runs, folder) for path in drawing()]


def _common(tables: list[Table], folder: Path, prefix: str) -> Iterator[Drawing]:
    """Yield what needs nothing but tables."""
    families = [family for table in tables for family in sizes(table)]
    yield partial(size_chart(families).save, folder / f"{prefix}size")
    for name, cost in COSTS.items():
        yield partial(tradeoff_figure, tables, cost, folder / f"{prefix}{name}")


def _light(table: Table) -> Table:
    """Return a table that travels easily: of the runs it keeps what those of a cell cost."""
    rows = [
        replace(
            row,
            run=replace(row.run, values={}),
            cells={column: _costs_only(cell) for column, cell in row.cells.items()},
            average=_costs_only(row.average),
        )
        for row in table.rows
    ]
    return replace(table, rows=rows, runs=[])


def _costs_only(cell: Cell) -> Cell:
    costs = {cost: mean(run.get(cost) for run in cell.runs) for cost in COSTS.values()}
    return replace(cell, runs=(costs,) if cell.runs else ())


def _timed(cells: list[Values], runs: list[Values]) -> list[Values]:
    """Join the published times to the precisions of the same setting on the same data set."""
    key = "bench.median_ms"
    times = {
        _setting(run): {key: run[key]} for run in runs if table_of(run) == "000 3" and key in run
    }
    return [run | times.get(_setting(run), {}) for run in cells]


def _setting(run: Values) -> frozenset:
    """Return what a published number is about: model, data set, method with its options."""
    about = (item for item in run.items() if item[0].startswith("config.peft."))
    return frozenset([*about, run["model"], run["data_set"]])


class Studio:
    """Where figures are drawn."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """Draw in the processes of a pool."""
        self._pool = pool
        self._begun: list[Future[list[Path]]] = []

    def draw(self, drawings: Iterable[Drawing]) -> None:
        """Begin to draw some figures."""
        self._begun += map(self._pool.submit, drawings)

    def paths(self) -> list[Path]:
        """Wait for the figures; return their files, in the order in which they were begun."""
        return [path for figure in self._begun for path in figure.result()]


@contextmanager
def studio() -> Iterator[Studio]:
    """Open a studio; it costs nothing to open one and to draw nothing."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["segsweep.results.charts.figures", *FORMATS])
    _ensure_running()
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else FORMATS
    pool = ProcessPoolExecutor(min(MOST, len(processors)), start, initializer=_worker)
    try:
        yield Studio(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _ensure_running() -> None:
    """Start what the processes come from; like them it is deaf to Ctrl-C, which is for us."""
    resource_tracker.ensure_running()  # starting it later would lift the block
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _worker() -> None:
    """End with the parent, even if it is killed."""
    gc.disable()  # a figure is very many objects, and a worker draws few of them
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()

"""All figures of runs, ours or published: which are drawn, and from which numbers.

delta_vs_params   delta to the full head (equation 11) against trained parameters
size_*            the same against one option of a method: rank, repeats, alpha, ...
pareto            the metric against trained parameters, and what nothing beats
latency, checkpoint, gpu_memory     the same against what else a setting costs
curves            the metric against epochs (ours only)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from segsweep.results.cells import Cell, Table, mean
from segsweep.results.curves import curve_figure, curves
from segsweep.results.plots import delta_figure
from segsweep.results.sizes import size_figure
from segsweep.results.spec import load
from segsweep.results.studio import Drawing
from segsweep.results.tables import build
from segsweep.results.tradeoff import tradeoff_figure
from segsweep.results.wording import Values

COSTS = {
    "pareto": "params.trainable",
    "latency": "bench.median_ms",
    "checkpoint": "delta.bytes",
    "gpu_memory": "memory.peak_cuda_mib",
}
SETTING = (
    *("model", "data_set", "config.peft.name"),
    *("config.peft.rank", "config.peft.repeats", "config.peft.residual"),
)


def of_runs(tables: list[Table], folder: Path, directories: Path) -> Iterator[Drawing]:
    """Yield every figure that the ablation tables may have numbers for.

    `directories` is the folder with the run directories, where the curves are.
    """
    light = [_light(table) for table in tables]
    yield partial(delta_figure, light, folder / "delta_vs_params")
    yield from _common(light, folder, "")
    runs = [run for table in tables for run in table.runs]
    yield partial(curve_figure, curves(runs, directories), folder / "curves")


def of_reported(runs: list[Values], folder: Path) -> Iterator[Drawing]:
    """Yield the figures of the study of adapters and LoRA from its tables 2, 3 and A1.

    Its Figure 6 is the mean panel of SEEM, its Figure 7 that of Mask DINO with a ResNet-50, without
    Cityscapes.
    """
    cells = [run for run in runs if _table(run) == "000 2a"]
    spec = replace(load("ablation"), reported="000 2a")
    built = build(spec, _timed(cells, runs), ("reported",))
    tables = {table.title: _light(table) for table in built}
    figures = {"peft_figure6": "seem_focall", "peft_figure7": "maskdino_r50"}
    for name, model in figures.items():
        if model in tables:
            yield partial(delta_figure, [tables[model]], folder / name)
    alpha = build(replace(spec, reported="000 A1"), runs, ("reported",))
    yield partial(size_figure, [_light(table) for table in alpha], folder / "peft_alpha")
    yield from _common(list(tables.values()), folder, "peft_")


def draw_published(runs: list[Values], folder: Path) -> list[Path]:
    """Draw the figures of the study one after the other; return the files written."""
    return [path for drawing in of_reported(runs, folder) for path in drawing()]


def _common(tables: list[Table], folder: Path, prefix: str) -> Iterator[Drawing]:
    """Yield what needs nothing but tables."""
    yield partial(size_figure, tables, folder / f"{prefix}size")
    for name, cost in COSTS.items():
        yield partial(tradeoff_figure, tables, cost, folder / f"{prefix}{name}")


def _light(table: Table) -> Table:
    """Return a table that travels easily: of the runs it keeps what those of a cell cost."""
    rows = [
        replace(
            row,
            run=replace(row.run, values={}),
            cells={column: _priced(cell) for column, cell in row.cells.items()},
            average=_priced(row.average),
        )
        for row in table.rows
    ]
    return replace(table, rows=rows, runs=[])


def _priced(cell: Cell) -> Cell:
    costs = {cost: mean(run.get(cost) for run in cell.runs) for cost in COSTS.values()}
    return replace(cell, runs=(costs,) if cell.runs else ())


def _timed(cells: list[Values], runs: list[Values]) -> list[Values]:
    """Join the published times to the precisions of the same setting on the same data set."""
    times = {
        tuple(run.get(key) for key in SETTING): run["bench.median_ms"]
        for run in runs
        if _table(run) == "000 3" and "bench.median_ms" in run
    }
    found = ((run, times.get(tuple(run.get(key) for key in SETTING))) for run in cells)
    return [run if time is None else run | {"bench.median_ms": time} for run, time in found]


def _table(run: Values) -> str:
    return f"{run['source.document']} {run['source.table']}"

"""All figures of runs, ours or published: which are drawn, and from which numbers.

delta_vs_params   delta to the full head (equation 11) against trained parameters
size_*            the same against one option of a method: rank, repeats, alpha, ...
pareto            the metric against trained parameters, and what nothing beats
latency, checkpoint, gpu_memory     the same against what else a setting costs
curves            the metric against epochs (ours only)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segsweep.collect.cells import Table
from segsweep.collect.curves import curve_figure
from segsweep.collect.plots import delta_figure
from segsweep.collect.settings import Values
from segsweep.collect.sizes import size_figure
from segsweep.collect.spec import load
from segsweep.collect.tables import build
from segsweep.collect.tradeoff import tradeoff_figure

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


def draw(tables: list[Table], folder: Path, directories: Path) -> list[Path]:
    """Draw every figure that the ablation tables have numbers for; return the files written.

    `directories` is the folder with the run directories, where the curves are.
    """
    runs = [run for table in tables for run in table.runs]
    paths = delta_figure(tables, folder / "delta_vs_params")
    return [*paths, *_common(tables, folder, ""), *curve_figure(runs, folder, directories)]


def draw_published(runs: list[Values], folder: Path) -> list[Path]:
    """Draw the figures of the study of adapters and LoRA from its tables 2, 3 and A1.

    Its Figure 6 is the mean panel of SEEM, its Figure 7 that of Mask DINO with a ResNet-50, without
    Cityscapes.
    """
    cells = [run for run in runs if _table(run) == "000 2a"]
    spec = replace(load("ablation"), reported="000 2a")
    tables = {table.title: table for table in build(spec, _timed(cells, runs), ("reported",))}
    figures = {"peft_figure6": "seem_focall", "peft_figure7": "maskdino_r50"}
    paths = []
    for name, model in figures.items():
        paths += delta_figure([tables[model]], folder / name) if model in tables else []
    alpha = build(replace(spec, reported="000 A1"), runs, ("reported",))
    paths += size_figure(alpha, folder / "peft_alpha")
    return [*paths, *_common(list(tables.values()), folder, "peft_")]


def _common(tables: list[Table], folder: Path, prefix: str) -> list[Path]:
    """Draw what needs nothing but tables."""
    paths = size_figure(tables, folder / f"{prefix}size")
    for name, cost in COSTS.items():
        paths += tradeoff_figure(tables, cost, folder / f"{prefix}{name}")
    return paths


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

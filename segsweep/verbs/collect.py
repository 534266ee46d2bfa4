"""The verb `collect`: from records of runs to tables and figures.

    results/runs/*/record.json  --frame----> one tidy frame --tables--> tables/ and figures/
    results/reported/*.csv      --reported->

Only files are read, at any time, also while a sweep runs; nothing here imports torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from segsweep.results.frame import Records
    from segsweep.results.wording import Values

USAGE = """Reads results/runs/*/record.json and writes the ablation table, every table of conf/table
to which the runs belong (Markdown, LaTeX, HTML, CSV), a CSV of all runs, and the figures."""


def main(argv: list[str] | None = None) -> int:
    """Print the tables of all runs and write them, with their figures, below the results folder."""
    parser = argparse.ArgumentParser("python -m segsweep collect", description=USAGE)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--metric", default="segm_AP", help="or `key`; default: segm_AP")
    parser.add_argument(
        "--reported", action="store_true", help="the published tables and figures instead of runs"
    )
    options = parser.parse_args(argv)
    if options.reported:
        return published(options.results)
    return collect(options.results, options.metric)


def collect(results: Path, metric: str = "segm_AP") -> int:
    """Read all records below `results`, print and write what follows from them; return 0.

    Raises UserError for a metric that no run has.
    """
    from segsweep.results import forms, frame, tables
    from segsweep.results.figures import of_runs
    from segsweep.results.studio import studio

    console = _console()
    with studio() as figures, frame.unwatched():
        records = frame.read(results)
        for path, reason in records.unreadable.items():
            console.print(f"skipped {path}: {reason}", style="yellow", markup=False, soft_wrap=True)
        if not records.runs and not records.bench:
            console.print(f"No finished runs in {results / 'runs'} yet. Start some:", markup=False)
            console.print("  python -m segsweep -m peft=lora peft.rank=2,4,8,16", markup=False)
            return 0
        found = tables.ablation(records.runs, metric)
        figures.draw(of_runs(found, results / "figures", results / "runs"))
        for table in found:
            console.print(forms.terminal(table))
        written = [
            *_ablation(results / "tables", found, records),
            *_published(results, [*records.runs, *records.bench], only_with_ours=True),
            *figures.paths(),
        ]
    return _wrote(console, written)


def published(results: Path) -> int:
    """Write all published tables and figures again from the reported numbers; return 0.

    Raises UserError where these cannot be read.
    """
    from segsweep.results.figures import of_reported
    from segsweep.results.reported import read
    from segsweep.results.studio import studio

    with studio() as figures:
        figures.draw(of_reported(read(results), results / "figures"))
        written = [*_published(results, [], only_with_ours=False), *figures.paths()]
    return _wrote(_console(), written)


def _ablation(folder: Path, found: list, records: Records) -> list[Path]:
    from segsweep.base.files import write_text
    from segsweep.results.typeset import write

    if not records.runs:
        return []  # benchmarks only
    paths = write(found, folder / "ablation") if found else []
    write_text(folder / "runs.csv", records.csv_text())
    return [*paths, folder / "runs.csv"]


def _published(results: Path, ours: list[Values], only_with_ours: bool) -> list[Path]:
    """Write every other table of conf/table that has numbers."""
    from segsweep.results import spec, tables
    from segsweep.results.reported import path_of, read
    from segsweep.results.typeset import write

    runs = [*(read(results) if path_of(results).is_file() else []), *ours]
    origins = ("reported", "ours") if only_with_ours else ("reported",)
    paths = []
    for name in spec.names():
        if name == "ablation":
            continue
        found = tables.build(spec.load(name), runs, origins)
        if only_with_ours and not any(row.origin == "ours" for t in found for row in t.rows):
            continue
        paths += write(found, results / "tables" / name) if found else []
    return paths


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)  # a pipe has no edge


def _wrote(console: Console, paths: list[Path]) -> int:
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0

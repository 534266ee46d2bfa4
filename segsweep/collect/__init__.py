"""The verb `collect`: from records of runs to tables and figures.

    results/runs/*/record.json --frame--> one tidy frame --tables--> tables/ and figures/

Only files are read, at any time, also while a sweep runs; nothing here imports torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = """Reads results/runs/*/record.json and writes the ablation table (Markdown, CSV), a CSV of
all runs, and the figure of delta AP against trained parameters."""


def main(argv: list[str] | None = None) -> int:
    """Print the tables of all runs and write them, with their figure, below the results folder."""
    parser = argparse.ArgumentParser("python -m segsweep collect", description=USAGE)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--metric", default="segm_AP", help="default: segm_AP")
    options = parser.parse_args(argv)
    return collect(options.results, options.metric)


def collect(results: Path, metric: str = "segm_AP") -> int:
    """Read all records below `results`, print and write what follows from them; return 0.

    Raises UserError for a metric that no run has.
    """
    from rich.console import Console

    from segsweep.collect import forms, frame, plots, tables

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no edge
    records = frame.read(results)
    for path, reason in records.unreadable.items():
        console.print(f"skipped {path}: {reason}", style="yellow", markup=False, soft_wrap=True)
    if not records.runs:
        console.print(f"No finished runs in {results / 'runs'} yet. Start some:", markup=False)
        console.print("  python -m segsweep -m peft=lora peft.rank=2,4,8,16", markup=False)
        return 0
    found = tables.ablation(records.runs, metric)
    for table in found:
        console.print(forms.terminal(table))
    written = {
        results / "tables" / "ablation.md": forms.markdown(found),
        results / "tables" / "ablation.csv": forms.csv_text(found),
        results / "tables" / "runs.csv": records.frame().to_csv(index=False, lineterminator="\n"),
    }
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    figures = plots.delta_figure(found, results / "figures" / "delta_vs_params")
    for path in [*written, *figures]:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0

"""The verb `collect`: from records of runs to tables and figures.

    results/runs/*/record.json  --frame----> one tidy frame --tables--> tables/ and figures/
    results/reported/*.csv      --reported->

Only files are read, at any time, also while a sweep runs; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.files import write_texts
from segsweep.base.parser import add_sources, sources, verb_parser
from segsweep.base.terminal import printer
from segsweep.results.spec import KEY

if TYPE_CHECKING:
    from rich.console import Console

    from segsweep.results.frame import Records
    from segsweep.results.wording import Values

GROUP = "results"
ALSO = ("results", "gather", "aggregate")
USAGE = """\
Reads results/runs/*/record.json and writes the ablation table, every table of
conf/table to which the runs belong (Markdown, LaTeX, HTML, CSV), a CSV of all
runs, and the figures; of runs that were judged on other data (`evaluate`) a
table of its own, elsewhere.

    python -m segsweep collect --from site-a site-b --results both

unites the results folders of several sites: the same run is counted once; one
whose copies say different things is named, and left out."""


def main(argv: list[str] | None = None) -> int:
    """Print the tables of all runs and write them, with their figures, below the results folder."""
    parser = verb_parser("collect", USAGE)
    add_sources(parser)
    parser.add_argument("--metric", default=KEY, help="default: each run's own metrics.key")
    parser.add_argument(
        "--reported", action="store_true", help="the published tables and figures instead of runs"
    )
    options = parser.parse_args(argv)
    if options.reported:
        return published(options.results)
    return collect(options.results, options.metric, *sources(options))


def collect(results: Path, metric: str, *folders: Path) -> int:
    """Read all records of results folders, print and write what follows below `results`; return 0.

    Raises UserError for a metric that no run has.
    """
    from segsweep.results import forms, frame, tables, typeset
    from segsweep.results.charts.figures import beside_printed, of_runs, studio
    from segsweep.results.elsewhere import shift_tables

    console = printer()
    with studio() as figures, frame.unwatched():
        records = frame.read(*folders)
        for path, reason in records.unreadable.items():
            console.print(f"skipped {path}: {reason}", style="yellow", markup=False, soft_wrap=True)
        for copies in records.differing:
            console.print(f"left out {copies}", style="yellow", markup=False, soft_wrap=True)
        if not records.runs and not records.bench:
            where = ", ".join(str(folder / "runs") for folder in folders)
            console.print(f"No finished runs in {where} yet. Start some:", markup=False)
            console.print("  python -m segsweep -m peft=lora peft.rank=2,4,8,16", markup=False)
            return 0
        ablation = tables.ablation(records.runs, metric)
        records.annotate(ablation)
        figures.draw(of_runs(ablation, results / "figures", *(f / "runs" for f in folders)))
        if records.runs:
            both = [*_reported(results), *records.runs]
            figures.draw(beside_printed(both, results / "figures"))
        for table in ablation:
            console.print(forms.terminal(table))
        texts = typeset.texts(ablation, results / "tables" / "ablation") if ablation else {}
        if records.runs:  # not benchmarks only
            texts[results / "tables" / "runs.csv"] = records.csv_text()
        if shifted := shift_tables(records.runs, records.elsewhere):
            console.print(*map(forms.terminal, shifted))
            texts |= typeset.texts(shifted, results / "tables" / "elsewhere")
        texts |= _named(results, records)
        return _write(console, texts, figures.paths())


def published(results: Path) -> int:
    """Write all published tables and figures again from the reported numbers; return 0.

    Raises UserError where these cannot be read.
    """
    from segsweep.results.charts.figures import of_reported, studio
    from segsweep.results.reported import read

    with studio() as figures:
        figures.draw(of_reported(read(results), results / "figures"))
        return _write(printer(), _named(results), figures.paths())


def _named(results: Path, records: Records | None = None) -> dict[Path, str]:
    """Return the other tables of conf/table: those that ours belong to, without ours all."""
    from segsweep.results import spec, tables, typeset
    from segsweep.results.elsewhere import joined

    ours = [*records.runs, *records.bench] if records else []
    runs = [*_reported(results), *ours]
    origins = ("reported", "ours") if ours else ("reported",)
    texts: dict[Path, str] = {}
    for name in spec.names():
        asked = spec.load(name)
        every = joined(asked, runs, records.elsewhere) if records else runs
        built = tables.build(asked, every, origins) if name != "ablation" else []
        if records:
            records.annotate(built)
        if any(row.origin == origins[-1] for table in built for row in table.rows):
            texts |= typeset.texts(built, results / "tables" / name)
    return texts


def _reported(results: Path) -> list[Values]:
    """Return the published numbers, none where nobody has the file."""
    from segsweep.results.reported import path_of, read

    return read(results) if path_of(results).is_file() else []


def _write(console: Console, texts: Mapping[Path, str], figures: list[Path]) -> int:
    """Write tables that belong together: the earlier ones stay where there is no room for all."""
    write_texts(texts)
    for path in [*texts, *figures]:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0

"""The verb `compare`: what runs find on the same images, side by side, and who loses which object.

    python -m segsweep compare 3f2a91 run=77b0c1 run=9d3e55 --images 8
    python -m segsweep compare 3f2a91 77b0c1 score=0.5 iou=0.75

Reads the predictions that runs kept (`predict split=val` makes missing ones); no model is run. The
first run is the one that the others are compared with. Each run's objects count from its score of
best F1 on, as in `report` and `predict`; label maps are compared image by image. Writes a page, a
figure and two lists. docs/pictures.md says what each number means.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.base.terminal import printer, share
from segsweep.sweeps.names import chosen, spoken

if TYPE_CHECKING:
    from segsweep.pages.compared.base import ComparedRuns

GROUP = "results"
ALSO = ("diff",)


def main(argv: list[str] | None = None) -> int:
    """Compare runs of the same images."""
    parser = verb_parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", help="names or ids of runs, sweeps or folders")
    add_results(parser)
    parser.add_argument("--images", type=_count, default=12, help="that are shown (12)")
    parser.add_argument(
        "--score",
        type=_score,
        default="best",
        help="least score, as in 0.5; default: best, that of each run's best F1",
    )
    parser.add_argument("--iou", type=share, default=0.5, help="of a right mask or box (0.5)")
    parser.add_argument("--out", type=Path, help="default: compare below the results")
    options = spoken(parser, argv)
    runs = chosen(options.results, options.runs, elsewhere=True)
    if len(runs) < 2:
        raise UserError(f"compare: needs two runs or more, {options.runs} names {len(runs)}")
    from segsweep.pages.compare import write
    from segsweep.pages.compared.base import compared

    comparison = compared(runs, options.words, options.score, options.iou)
    show(comparison)
    names = "-".join(run.record["id"][:6] for run in comparison.runs)
    for path in write(
        comparison, options.out or options.results / "compare" / names, options.images
    ):
        print(f"wrote {path}")
    return 0


def _score(text: str) -> float | str:
    return text if text == "best" else share(text)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return int(text)


def show(comparison: ComparedRuns) -> None:
    """Print what each run finds, then each one beside the first, by kind and class."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = printer(highlight=False)
    table = Table(box=SIMPLE_HEAD)
    summaries = comparison.summaries()
    for column in summaries[0]:
        table.add_column(column, justify="left" if column in ("run", "id") else "right")
    for summary in summaries:
        table.add_row(*map(_text, summary.values()))
    console.print(table)
    for remark in comparison.remarks():
        console.print(remark, style="yellow", markup=False, soft_wrap=True)
    note = ""
    for pair in comparison.pairs():
        table = Table(title=f"{comparison.runs[0].label} and {pair.other}", box=SIMPLE_HEAD)
        table.title_justify = "left"
        for k, column in enumerate(pair.heads):
            table.add_column(column, justify="right" if k else "left")
        for row in pair.rows:
            table.add_row(*row)
        console.print(table)
        note = pair.note
    if note:
        console.print(note)


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "-" if value is None else str(value)

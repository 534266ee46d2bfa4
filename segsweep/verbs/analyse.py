"""The verb `analyse`: why a run's metric is what it is, from the predictions that it kept.

    python -m segsweep analyse table2 --slice modality
    python -m segsweep analyse 3f2a91 --score 0.3 --iou 0.75

Nothing is trained or predicted again. Writes results/analysis: a folder per run with analysis.json,
its lists (missed.csv; of label maps images.csv and confusion.csv) and its figure; runs.csv,
slices.csv and, of label maps, classes.csv and confusions.csv over all. docs/analysis.md says what
each number means.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.base.terminal import printer, share

if TYPE_CHECKING:
    from segsweep.analysis.study import Analysis

GROUP = "results"
ALSO = ("analyze", "analysis", "errors")


def main(argv: list[str] | None = None) -> int:
    """Analyse the chosen runs that kept predictions; the others are named with the reason.

    Raises UserError when there is none.
    """
    from segsweep.pages import analysis_forms as forms
    from segsweep.sweeps.names import chosen

    parser = verb_parser("analyse", __doc__)
    parser.add_argument("runs", nargs="+", help="names or ids of runs, sweeps or folders")
    add_results(parser)
    parser.add_argument(
        "--slice",
        action="append",
        default=[],
        metavar="COLUMN",
        help="results by the values of this column, beside data.slices; may be repeated",
    )
    parser.add_argument("--score", type=share, help="of recall; default: that of the best F1")
    parser.add_argument("--iou", type=share, default=0.5, help="of a right mask or box (0.5)")
    parser.add_argument("--out", type=Path, help="default: analysis below the results")
    options = parser.parse_args(argv)
    console = printer()
    analyses: dict[str, Analysis] = {}
    reason = UserError("analyse: no runs")
    for directory in chosen(options.results, options.runs, elsewhere=True):
        try:
            analyses[directory.name] = _analysis(directory, options)
        except UserError as error:
            reason = error
            console.print(f"skipped {error}", style="yellow", markup=False, soft_wrap=True)
    if not analyses:
        raise reason
    for table in forms.tables(analyses):
        console.print(table)
    for path in forms.write(analyses, options.out or options.results / "analysis"):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0


def _analysis(directory: Path, options: argparse.Namespace) -> Analysis:
    """Analyse one finished run. Raises UserError where its files do not belong together."""
    from segsweep.analysis import study
    from segsweep.run import predictions
    from segsweep.run.restore import load

    predicted, config = predictions.of_run(directory), load(directory)
    columns = list(dict.fromkeys([*config.data.slices, *options.slice]))
    return study.analyse(config, predicted, columns=columns, iou=options.iou, score=options.score)

"""The verb `report`: one page that says what a sweep found and which setting to use.

    python -m segsweep report                                 all runs, results/report.html
    python -m segsweep report pilot --latency-ms 60 --size-mb 1 --margin 0.5
    python -m segsweep report pilot --miss-cost 50 --false-alarm-cost 1 --must-pass 'site=a>=30'

Only files are read, also while the sweep still runs. The page needs nothing but itself. Limits,
costs and the margin are the defaults of its form. docs/report.md says how settings are chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.parser import add_runs, verb_parser
from segsweep.metrics.learnt import FLOOR

if TYPE_CHECKING:
    from segsweep.pages.report.content import ReportContent
    from segsweep.results.wishes import Wishes

GROUP = "results"
ALSO = ("html", "page", "dashboard")


def main(argv: list[str] | None = None) -> int:
    """Write the page and print the decision.

    Raises UserError for words that name no runs and requirements on what nothing measured.
    """
    parser = verb_parser("report", __doc__)
    add_runs(parser)
    parser.add_argument("--out", type=Path, help="default: report.html below the results")
    parser.add_argument("--reported", action="store_true", help="published tables beside ours, too")
    parser.add_argument("--no-pictures", action="store_true", help="leave the pictures out")
    parser.add_argument("--latency-ms", type=_amount, help="most time for an image, by `bench`")
    parser.add_argument("--size-mb", type=_amount, help="most to store for each task")
    parser.add_argument("--miss-cost", type=_amount, default=0.0, help="of a missed object")
    parser.add_argument("--false-alarm-cost", type=_amount, default=0.0, help="of a false alarm")
    parser.add_argument(
        "--margin", type=_amount, default=1.0, help="points that a smaller setting may cost; 1"
    )
    parser.add_argument(
        "--floor", type=_amount, default=FLOOR, help="points below which nothing was learnt; 1"
    )
    parser.add_argument(
        "--must-pass",
        action="append",
        default=[],
        metavar="'WHAT>=X'",
        help="a slice, metric or recall that must hold; may be repeated",
    )
    options = parser.parse_args(argv)
    from segsweep.pages.report import content

    results, out = options.results, options.out or options.results / "report.html"
    report = content.gather(results, options.what, out, options.reported)
    if not report.statuses:
        print(f"No runs in {results / 'runs'} yet. Start some:")
        print("  python -m segsweep -m +sweep=pilot data=coco data.root=FOLDER")
        return 0
    wishes = _wishes(options, report)
    _summary(report, wishes)
    from segsweep.base.files import write_text
    from segsweep.pages.report.page import render

    text = render(report, wishes, pictures=not options.no_pictures)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    print(f"wrote {out} ({len(text.encode()) / 1e6:.2f} MB)")
    return 0


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number from 0 on")
    return value


def _wishes(options: argparse.Namespace, report: ReportContent) -> Wishes:
    from segsweep.results.wishes import Wishes, parse_limit

    known = dict.fromkeys(name for contest in report.contests for name in contest.measures())
    must = [parse_limit(text, known) for text in options.must_pass]
    return Wishes(
        latency=options.latency_ms,
        size=options.size_mb,
        miss_cost=options.miss_cost,
        false_alarm_cost=options.false_alarm_cost,
        must=must,
        margin=options.margin,
        floor=options.floor,
    )


def _summary(report: ReportContent, wishes: Wishes) -> None:
    """Print how far the runs are, then the decision of each data set."""
    from segsweep.results.decision import decide
    from segsweep.results.grounds import Grounds, worded

    counts = ", ".join(f"{number} {state}" for state, number in report.counts().items())
    number = len(report.statuses)
    print(f"{number} run{'s' if number != 1 else ''}: {counts}")
    for warning in report.warnings:
        print(warning)
    for contest in report.contests:
        number = len(contest.candidates)
        print(f"{contest.name} ({contest.metric}, {number} setting{'s' if number != 1 else ''})")
        grounds = Grounds(contest)
        said = [grounds.progress(), grounds.ceiling(), *decide(contest, wishes).words]
        for words in filter(None, said):
            print(f"  {words}")
    if report.contests:
        print(worded("seen"))

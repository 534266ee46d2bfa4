"""The verb `status`: what every run does, computed from its files and the queue when asked.

python -m segsweep status                     all runs
python -m segsweep status table2 --watch      one sweep, again and again until all is over
python -m segsweep status --state failed      only some
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict

from segsweep.base.parser import add_runs, verb_parser
from segsweep.sweeps.status import URGENT, lines, survey

GROUP = "train"
ALSO = ("ls", "list", "ps", "runs", "jobs", "show")


def main(argv: list[str] | None = None) -> int:
    """Print the state of the chosen runs, once or until they are over."""
    parser = verb_parser("status", __doc__)
    add_runs(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    parser.add_argument("--all", action="store_true", help="show every run, however many")
    parser.add_argument(
        "--state", nargs="+", choices=URGENT, default=[], help="show the runs in these states only"
    )
    parser.add_argument(
        "--watch", nargs="?", type=float, const=10.0, metavar="S", help="again every S (10) seconds"
    )
    options = parser.parse_args(argv)
    while True:
        runs, warning = survey(options.results, options.what)
        selected = [run for run in runs if not options.state or run.state in options.state]
        if options.watch:
            print("\x1b[H\x1b[J" if os.isatty(1) else "", end="")  # a cleared terminal
        if options.json:
            print(*warning, sep="\n", end="\n" if warning else "", file=sys.stderr)
            print(json.dumps([asdict(run) for run in selected], indent=1))
        elif runs:
            print("\n".join([*warning, *lines(selected, options.all or bool(options.state))]))
        else:
            print(f"No runs in {options.results / 'runs'} yet.")
        live = any(run.state in ("running", "pending") for run in runs)
        if not (options.watch and live):
            return 0
        print(f"(again every {options.watch:g} s until all is over; Ctrl-C ends)", flush=True)
        time.sleep(options.watch)

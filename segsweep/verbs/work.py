"""The verb `work`: train runs from frozen configs, one, or of a sweep the next free one, and so on.

    python -m segsweep work results/runs/<run>
    python -m segsweep work results/runs/<run> results/runs/<other>      in turns: one pack
    python -m segsweep work --sweep table2                       as many of these as you like
    python -m segsweep work --sweep table2 --until 08:00         begin no run after that
    python -m segsweep work --sweep table2 --until +11h --no-wait

No node composes again: what was composed at launch is what runs. Launchers start the first form;
where a run has several devices, once each. With `--sweep` it is a worker: `hydra/launcher=queue`
freezes a sweep for it, and docs/cluster.md starts many. Told to stop (SIGTERM, Ctrl-C), it writes
a checkpoint, from which another worker goes on.
"""

from __future__ import annotations

import os
import re
import sys
import time
from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from pathlib import Path

from segsweep.base.errors import UserError, told
from segsweep.base.files import read_json
from segsweep.base.parser import add_results, verb_parser
from segsweep.run.attempts import counted
from segsweep.run.phases import Phases
from segsweep.run.restore import frozen
from segsweep.sweeps.pull import LEASE, LEAST, Terms, Worker
from segsweep.sweeps.slurm import INTENT

GROUP = "train"
ALSO = ("worker", "agent")


def assigned(path: Path) -> Path:
    """Return the run directory that this process is to train.

    Named itself, or by the list of a SLURM array's runs, of which each task takes its own.
    """
    if path.is_dir():
        return path
    runs = (read_json(path, INTENT) or {"runs": []})["runs"]
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    if task >= len(runs):
        raise UserError(f"{path}: neither a run directory nor a list with a run of task {task}")
    return path.parent.parent / runs[task]


def main(argv: list[str] | None = None) -> int:
    """Train one run, or drain a sweep; 1 if some of its runs failed for good."""
    parser = verb_parser("work", __doc__)
    parser.add_argument(
        "directories", nargs="*", type=Path, metavar="directory",
        help="a run, several that share one pass, or the list of runs of a SLURM array",
    )  # fmt: skip
    parser.add_argument("--sweep", metavar="NAME", help="train its free runs, one after the other")
    add_results(parser)
    parser.add_argument("--max-runs", type=_at_least(1), metavar="N", help="begin so many at most")
    parser.add_argument(
        "--until",
        type=moment,
        metavar="TIME",
        help="begin none after 08:00, +11h, 2026-12-24T18:00",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="leave when living others train the rest"
    )
    parser.add_argument(
        "--retries", type=_at_least(0), default=1, help="of a run that failed, by all workers; 1"
    )
    parser.add_argument(
        "--lease", type=_lease, default=LEASE, metavar="MINUTES",
        help=f"without a sign of life, after which a worker elsewhere counts as dead; {LEASE:g}",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if bool(options.directories) == (options.sweep is not None):
        raise UserError("work: name a run directory, or a sweep: --sweep NAME")
    if options.sweep is None:
        one, *others = options.directories
        return _pack(options.directories) if others else _one(one)
    terms = Terms(
        options.max_runs, options.until, not options.no_wait, options.retries, options.lease
    )
    return Worker(options.results, options.sweep, terms).drain()


def _one(path: Path) -> int:
    from segsweep.story import train

    Phases.from_process()
    run = frozen(assigned(path))
    sys.argv.insert(1, "work")  # Lightning starts the other ranks with this command line
    try:
        run.once(counted(train))
    except OSError as error:
        if not (sentence := told(error)):
            raise
        print(f"segsweep: {sentence}", file=sys.stderr)
        return 1  # what the system refused once may pass: a job with a retry left is tried again
    return 0


def _pack(paths: list[Path]) -> int:
    from segsweep.run.pack import train_pack
    from segsweep.story import train

    return int(not train_pack([frozen(path) for path in paths], counted(train)))


def _at_least(bound: int):
    def number(text: str) -> int:
        if int(text) < bound:
            raise ArgumentTypeError(f"{text} must be at least {bound}")
        return int(text)

    return number


def _lease(text: str) -> float:
    if not LEAST <= float(text) < float("inf"):
        raise ArgumentTypeError(f"{text}: at least {LEAST:g} minutes, which are some signs of life")
    return float(text)


def moment(text: str) -> float:
    """Return a moment to come, in seconds since 1970; without a date it is the next such time."""
    if span := re.fullmatch(r"\+(\d+(?:\.\d+)?)([hm])", text):
        return time.time() + float(span[1]) * {"h": 3600, "m": 60}[span[2]]
    now = datetime.now().astimezone()
    try:
        if clock := re.fullmatch(r"(\d\d?):(\d\d)", text):
            then = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            then += timedelta(days=then <= now)
        else:
            then = datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise ArgumentTypeError(f"{text}: say 08:00, +11h, +30m or 2026-12-24T18:00") from error
    if then <= now:
        raise ArgumentTypeError(f"{text} is over")
    return then.timestamp()

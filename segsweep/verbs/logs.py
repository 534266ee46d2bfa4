"""The verb `logs`: what a run printed, then why it failed.

python -m segsweep logs 3f2a91 --follow
"""

from __future__ import annotations

import time
from pathlib import Path

from segsweep.base.files import opened
from segsweep.base.parser import add_results, add_run, verb_parser
from segsweep.base.terminal import printable
from segsweep.run.identity import LIVE, state_of
from segsweep.run.shapes import failure_of
from segsweep.sweeps.names import single_run
from segsweep.sweeps.status import jobs

GROUP = "train"
ALSO = ("log", "tail")
PAUSE = 1.0  # seconds between two looks at a log that grows


def main(argv: list[str] | None = None) -> int:
    """Print the end of the log of one run, and the traceback if its last attempt failed."""
    parser = verb_parser("logs", __doc__)
    add_run(parser)
    add_results(parser)
    parser.add_argument("-n", "--lines", type=int, default=50, help="last lines; 0: all (50)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    options = parser.parse_args(argv)
    run = single_run(options.results, options.run)
    position = show(run / "log.txt", options.lines)
    if options.follow:
        position = follow(run, position)
    print(ending(run, position), end="")
    return 0


def show(log: Path, lines: int) -> int:
    """Print the last lines of a log; return how many bytes it had."""
    text = _from(log, 0)
    lines_shown = text.splitlines(keepends=True)[-lines:]
    _print(b"".join(lines_shown))
    return len(text)


def follow(run: Path, position: int) -> int:
    """Print what is added to the log behind `shown` bytes until the run neither waits nor runs."""
    while True:
        live = state_of(run, jobs([run])) in LIVE
        text = _from(run / "log.txt", position)
        _print(text)
        position += len(text)
        if not live:
            return position
        time.sleep(PAUSE)


def _from(log: Path, position: int) -> bytes:
    """Return what a log holds from a position on; nothing while its run waits."""
    try:
        with opened(log) as file:
            file.seek(position)
            return file.read()
    except FileNotFoundError:
        return b""


def _print(text: bytes) -> None:
    print(printable(text.decode(errors="replace")), end="", flush=True)


def ending(run: Path, position: int) -> str:
    """Return why the last attempt failed, or that there is nothing to show."""
    failure = failure_of(run)
    if failure and failure["status"] == "failed":
        error = failure.get("error") or {}
        ended, trace = failure.get("ended", ""), error.get("traceback", "")
        return printable(f"--- failed {ended}\n{trace.rstrip()}\n")
    return "" if position else f"{run.name}: no log yet ({state_of(run, jobs([run])).value})\n"

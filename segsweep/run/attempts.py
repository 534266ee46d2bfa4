"""How often a run was tried, so that a run that cannot end well is not tried for ever.

    attempts.json   failed    attempts that ended with an error
                    silent    attempts in a row that ended without a word, and got no further
                    went_on   the checkpoint from which the last attempt went on, by its time
                    open      whether the last attempt has not said how it ended

Whoever owns the run writes it; a launch deletes it. An attempt that was told to stop counts for
nothing, and neither does one that was killed with the machine, as long as checkpoints move on:
machines are taken away as often as they are. What kills every machine that it runs on must end.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segsweep.base.errors import Damaged
from segsweep.base.files import json_text, read_json
from segsweep.base.owner import Busy, LostOwnership
from segsweep.base.signals import wish
from segsweep.run.folder import ATTEMPTS, CHECKPOINT
from segsweep.run.identity import Run, rank
from segsweep.run.shapes import COUNT

SILENT = 5  # attempts that end without a word and get no further, one after the other

COUNTS = {"failed": COUNT, "silent": COUNT, "went_on": COUNT, "open": bool}
NONE = {"failed": 0, "silent": 0, "went_on": 0, "open": False}

Train = Callable[[Run], dict[str, Any]]


class Killed(Exception):
    """A signal killed the process of a run."""

    def __init__(self, signum: int) -> None:
        hint = "; mostly for lack of memory" if signum == signal.SIGKILL else ""
        super().__init__(f"its process was killed by {signal.Signals(signum).name}{hint}")


def counted(train: Train) -> Train:
    """Return what trains a run as `train` does, and keeps count of it as its owner."""

    @functools.wraps(train)
    def attempt(run: Run) -> dict[str, Any]:
        if rank(run.config.trainer):
            return train(run)
        begin(run)
        try:
            body = train(run)
            run.delete(ATTEMPTS)
            return body
        except LostOwnership:
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk must not hide the error itself
                end(run, isinstance(error, Exception) and wish.asked is None)
            raise

    return attempt


def begin(run: Run) -> None:
    """Note that the owner of a run begins to train it."""
    counts = _counts(run.directory)
    counts |= {"silent": _silent(run.directory, counts)}
    _write(run, counts | {"open": True, "went_on": _checkpoint(run.directory)})


def end(run: Run, failed: bool) -> None:
    """Note that an attempt ended before the run did: with an error, or since it was told to."""
    counts = _counts(run.directory)
    _write(run, counts | {"open": False, "silent": 0, "failed": counts["failed"] + failed})


def killed(run: Run, signum: int) -> None:
    """Note of a run that a signal killed its process, unless somebody else trains it by now."""
    with contextlib.suppress(Busy), run.owning():
        if not run.finished():
            end(run, failed=True)
            try:
                raise Killed(signum)
            except Killed as error:
                run.publish_failure(run.head(), error)


def given_up(directory: Path, retries: int) -> str:
    """Return why a run that nobody trains now is not to be tried again, nothing if it is."""
    counts = _counts(directory)
    if counts["failed"] > retries:
        return f"failed {counts['failed']} times"
    if (silent := _silent(directory, counts)) >= SILENT:
        return f"{silent} attempts in a row ended without a word and got no further"
    return ""


def _silent(directory: Path, counts: dict[str, Any]) -> int:
    """Return how many attempts in a row said nothing, with the last one, and got no further."""
    if not counts["open"] or counts["went_on"] != _checkpoint(directory):
        return 0
    return counts["silent"] + 1


def _checkpoint(directory: Path) -> int:
    """Return the time of the checkpoint (ns), which changes with each; 0 if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return (directory / CHECKPOINT).stat().st_mtime_ns
    return 0


def _counts(directory: Path) -> dict[str, Any]:
    """Return the counts; those of a damaged file begin anew."""
    with contextlib.suppress(Damaged):
        return NONE | (read_json(directory / ATTEMPTS, COUNTS) or {})
    return NONE


def _write(run: Run, counts: dict[str, Any]) -> None:
    run.write(ATTEMPTS, json_text(counts).encode())

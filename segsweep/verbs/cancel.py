"""The verb `cancel`: end runs that wait or run; they keep their checkpoints.

    python -m segsweep cancel table2      a sweep: its jobs, or the command that trains it here
    python -m segsweep cancel 3f2a91      one run
    python -m segsweep cancel --all       everything in results/

Jobs are ended by scancel, processes of this machine by SIGTERM; both write a checkpoint first. The
same command line, or `retry`, goes on where they stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_json
from segsweep.base.owner import is_live
from segsweep.base.queue import Queue, ask
from segsweep.run.identity import LIVE, now, state_of
from segsweep.sweep.names import chosen, named_or_all, sweeps
from segsweep.sweep.status import jobs

BATCH = 500  # jobs that one call of scancel ends


def main(argv: list[str] | None = None) -> int:
    """End the chosen runs; 1 if one of them cannot be reached from here."""
    parser = argparse.ArgumentParser("python -m segsweep cancel", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders")
    parser.add_argument("--all", action="store_true", help="all runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    options = parser.parse_args(argv)
    named_or_all("cancel", options.what, options.all)
    runs = chosen(options.results, options.what)
    queue = jobs(runs)
    live = [run for run in runs if state_of(run, queue) in LIVE]
    submitted = {run: job for run in live if (job := _job(run, queue))}
    cancel(submitted)
    wide = options.all or any(word in sweeps(options.results) for word in options.what)
    here, away = stop([run for run in live if run not in submitted], wide)
    print(
        f"{len(runs)} runs, {len(live)} of them live: "
        f"{len(submitted)} jobs cancelled, {len(here)} processes told to stop"
    )
    print(*away, sep="\n", end="\n" if away else "")
    return 1 if away else 0


def _job(run: Path, queue: Queue | None) -> dict[str, Any] | None:
    """Return the job of a run, if it is in the queue."""
    job = read_json(run / "job.json")
    return job if job and queue and job["id"] in queue else None


def cancel(submitted: dict[Path, dict[str, Any]]) -> None:
    """Cancel jobs, and remember that it was wanted: such a run is interrupted, not lost.

    Raises UserError when SLURM refuses.
    """
    for run, job in submitted.items():
        write_json(run / "job.json", job | {"cancelled": now()})
    ids = [job["id"] for job in submitted.values()]
    for start in range(0, len(ids), BATCH):
        ask("scancel", *ids[start : start + BATCH])


def stop(runs: Sequence[Path], wide: bool) -> tuple[set[int], list[str]]:
    """Tell the processes that train runs to stop; `wide`: also the command that started them.

    Returns the processes that were told, and a sentence for each run that others must be told of.
    """
    told: set[int] = set()
    away: list[str] = []
    for run in runs:
        owner = read_json(run / "owner")
        if owner is None or not is_live(owner):  # it ended meanwhile
            continue
        if owner["host"] != socket.gethostname():
            away.append(f"{run.name}: process {owner['pid']} on {owner['host']}; cancel it there")
            continue
        told.add((wide and _launcher(owner["pid"])) or owner["pid"])
    for pid in told:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise UserError(f"process {pid} belongs to somebody else") from error
    return told, away


def _launcher(pid: int) -> int | None:
    """Return the process that started this one, if it is a command of segsweep, too."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        words = Path(f"/proc/{parent}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return parent if b"segsweep" in words else None

"""Runs ended before their time, and started again from their frozen configs."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from segsweep.base.files import write_json
from segsweep.base.owner import owner_of
from segsweep.base.process import is_here, is_live, named
from segsweep.base.queue import Queue, Queued, ask, queue, this_user
from segsweep.run.identity import Run, State, now
from segsweep.run.restore import frozen
from segsweep.run.shapes import job_of
from segsweep.sweeps.again import Launch
from segsweep.sweeps.local import train_all
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.slurm import submit

ENDED = [state.value for state in (State.FAILED, State.LOST, State.INTERRUPTED, State.NEW)]
BATCH = 500  # jobs that one call of scancel ends


def cancel(live: Sequence[Path], queue: Queue | None, wide: bool) -> tuple[int, int, list[str]]:
    """End live runs: jobs by scancel, processes of this machine by SIGTERM.

    `wide`: also the commands that started the processes. Returns the numbers of jobs and of
    processes, and a sentence for each run that cannot be reached from here.

    Raises UserError when SLURM refuses.
    """
    jobs = {run: found for run in live if (found := _queued_job(run, queue))}
    theirs = {run: why for run, (job, queued) in jobs.items() if (why := _not_ours(job, queued))}
    cancelled = _cancel_jobs({run: job for run, (job, _) in jobs.items() if run not in theirs})
    pids, unreachable = _stop([run for run in live if run not in jobs], wide)
    unreachable += [f"{run.name}: {why}" for run, why in theirs.items()]
    return cancelled, len(pids), unreachable


def _queued_job(run: Path, queue: Queue | None) -> tuple[dict[str, Any], Queued] | None:
    """Return the job of a run, and what is said of it, if it is in the queue."""
    job = job_of(run)
    queued = queue.standing(job) if job and queue else None
    return (job, queued) if job and queued else None


def _not_ours(job: dict[str, Any], queued: Queued) -> str:
    """Return why a job cannot be cancelled from here, nothing if it can."""
    user = job.get("user") or this_user()
    if user != this_user():
        return f"job {job['id']} is {user}'s: only {user} can cancel it"
    return "" if queued.comment else f"squeue does not list job {job['id']}, which runs by sacct"


def _cancel_jobs(submitted: dict[Path, dict[str, Any]]) -> int:
    """Cancel jobs, and remember that it was wanted: such a run is interrupted, not lost.

    The queue is asked again for each call: a number is given to scancel only while the job that
    has it is known by our comment. Returns how many were.
    """
    for run, job in submitted.items():
        write_json(run / "job.json", job | {"cancelled": now()})
    jobs, cancelled = list(submitted.values()), 0
    for start in range(0, len(jobs), BATCH):
        mine = queue().of(None)
        comments = {job: queued.comment for job, queued in mine.items() if queued.comment}
        batch = jobs[start : start + BATCH]
        ids = [job["id"] for job in batch if comments.get(job["id"]) == job.get("comment", "")]
        ask("scancel", *ids) if ids else None
        cancelled += len(ids)
    return cancelled


def _stop(runs: Sequence[Path], wide: bool) -> tuple[set[int], list[str]]:
    """Tell the processes that train runs to stop; return them, and a sentence for each far one."""
    pids: dict[int, str] = {}
    unreachable: list[str] = []
    for run in runs:
        owner = owner_of(run)
        if owner is None or not is_live(owner):  # it ended meanwhile
            continue
        pid, who = owner["pid"], f"{run.name}: {named(owner)}"
        if not is_here(owner):
            unreachable.append(f"{who}; cancel it there")
        else:
            pids[(wide and _launcher(pid)) or pid] = who
    for pid, who in pids.items():
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError:
            unreachable.append(f"{who}; it is not yours")
    return set(pids), unreachable


def _launcher(pid: int) -> int | None:
    """Return the command of segsweep that a process goes back to, if it was started by one."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        command = Path(f"/proc/{parent}/cmdline").read_text(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return (_launcher(parent) or parent) if is_segsweep(command) else None


def is_segsweep(command: Sequence[str]) -> bool:
    """Say whether a command line is one of segsweep; a folder of that name does not make it one."""
    program = [Path(word).name for word in command[:2]]  # the console script, maybe by a python
    modules = [module for option, module in pairwise(command) if option == "-m"]
    return "segsweep" in [*program, *(module.partition(".")[0] for module in modules)]


def reopened(directory: Path, anew: bool) -> Run:
    """Return the run of a directory; with `anew` its owner empties it of all but its config.

    Raises UserError when its config names another run now.
    """
    run = frozen(directory)
    run.config.force = anew
    return run


def start_again(runs: Sequence[Run], launches: Mapping[Path, Launch]) -> int:
    """Start runs again, each as its directory says; return how many did not finish here."""
    groups: dict[int, list[Run]] = {}
    for run in runs:
        groups.setdefault(id(launches[run.directory]), []).append(run)
    unfinished = 0
    for group in groups.values():
        launch = launches[group[0].directory]
        if isinstance(launch.options, Slurm):
            jobs = submit(group, launch.options, launch.word or "slurm")
            print(f"submitted {len(jobs)} runs; `status` shows them")
        else:
            states = train_all({run: run.name for run in group}, launch.options)
            unfinished += sum(state is not State.DONE for state in states.values())
    return unfinished

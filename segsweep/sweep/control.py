"""Runs ended before their time, and started again from their frozen configs."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.files import read_json, write_json
from segsweep.base.owner import is_live, owner_of
from segsweep.base.queue import Queue, ask
from segsweep.run.identity import Run, State, now
from segsweep.run.restore import frozen
from segsweep.sweep.local import Local, train_all
from segsweep.sweep.slurm import Slurm, submit

ENDED = [state.value for state in (State.FAILED, State.LOST, State.INTERRUPTED, State.NEW)]
BATCH = 500  # jobs that one call of scancel ends


def cancel(live: Sequence[Path], queue: Queue | None, wide: bool) -> tuple[int, int, list[str]]:
    """End live runs: jobs by scancel, processes of this machine by SIGTERM.

    `wide`: also the commands that started the processes. Returns the numbers of jobs and of
    processes, and a sentence for each run that cannot be reached from here.

    Raises UserError when SLURM refuses, and for processes of somebody else.
    """
    submitted = {run: job for run in live if (job := _queued_job(run, queue))}
    _cancel_jobs(submitted)
    pids, unreachable = _stop([run for run in live if run not in submitted], wide)
    return len(submitted), len(pids), unreachable


def _queued_job(run: Path, queue: Queue | None) -> dict[str, Any] | None:
    """Return the job of a run, if it is in the queue."""
    job = read_json(run / "job.json")
    return job if job and queue and job["id"] in queue else None


def _cancel_jobs(submitted: dict[Path, dict[str, Any]]) -> None:
    """Cancel jobs, and remember that it was wanted: such a run is interrupted, not lost."""
    for run, job in submitted.items():
        write_json(run / "job.json", job | {"cancelled": now()})
    ids = [job["id"] for job in submitted.values()]
    for start in range(0, len(ids), BATCH):
        ask("scancel", *ids[start : start + BATCH])


def _stop(runs: Sequence[Path], wide: bool) -> tuple[set[int], list[str]]:
    """Tell the processes that train runs to stop; return them, and a sentence for each far one."""
    pids: set[int] = set()
    unreachable: list[str] = []
    for run in runs:
        owner = owner_of(run)
        if owner is None or not is_live(owner):  # it ended meanwhile
            continue
        pid, host = owner["pid"], owner["host"]
        if host != socket.gethostname():
            unreachable.append(f"{run.name}: process {pid} on {host}; cancel it there")
        else:
            pids.add((wide and _launcher(pid)) or pid)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise UserError(f"process {pid} belongs to somebody else") from error
    return pids, unreachable


def _launcher(pid: int) -> int | None:
    """Return the process that started this one, if it is a command of segsweep, too."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        command = Path(f"/proc/{parent}/cmdline").read_text(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return parent if is_segsweep(command) else None


def is_segsweep(command: Sequence[str]) -> bool:
    """Say whether a command line is one of segsweep; a folder of that name does not make it one."""
    program = [Path(word).name for word in command[:2]]  # the console script, maybe by a python
    return "segsweep" in program or any(pair == ("-m", "segsweep") for pair in pairwise(command))


def reopened(directory: Path, anew: bool) -> Run:
    """Return the run of a directory; with `anew` its owner empties it of all but its config.

    Raises UserError when its config names another run now.
    """
    run = frozen(directory)
    run.config.force = anew
    return run


def start_again(runs: Sequence[Run], slurm: bool, changes: Sequence[str]) -> int:
    """Start runs with the launcher that each had; `slurm`: submit also what no job had.

    `changes` are `key=value` words for the options of the launcher. Returns how many of those that
    trained here did not finish.

    Raises UserError for unknown keys and wrong values.
    """
    groups: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        job = read_json(run.directory / "job.json")
        launcher = job["launcher"] if job else {} if slurm else None
        groups[json.dumps(launcher, sort_keys=True)].append(run)
    unfinished = 0
    for launcher, group in groups.items():
        options = _changed(json.loads(launcher), changes)
        if isinstance(options, Slurm):
            print(f"submitted {len(submit(group, options))} runs; `status` shows them")
        else:
            states = train_all({run: run.name for run in group}, options)
            unfinished += sum(state is not State.DONE for state in states.values())
    return unfinished


def _changed(launcher: dict[str, Any] | None, changes: Sequence[str]) -> Slurm | Local:
    """Return typed options: those of a job, or of this machine where there was none."""
    schema = OmegaConf.structured(Local if launcher is None else Slurm)
    try:
        options = OmegaConf.merge(schema, launcher or {}, OmegaConf.from_dotlist(list(changes)))
        return OmegaConf.to_object(options)  # pyright: ignore[reportReturnType]
    except OmegaConfBaseException as error:
        raise UserError(f"--with: {explain(error)}") from error

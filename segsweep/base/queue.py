"""What SLURM's controller says: which jobs wait or run.

`squeue` is asked, never `sacct`: accounting is late, often absent, and calls a requeued job dead.
Nothing here imports torch.
"""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

from segsweep.base.errors import UserError

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")


class Queued(NamedTuple):
    """A job that waits or runs: SLURM's word for its state, and the comment it was given."""

    state: str
    comment: str

    @property
    def waiting(self) -> bool:
        """Say whether the job holds no node now."""
        return self.state in WAITING


Queue = dict[str, Queued]  # by job id, `123` or `123_4` for a task of an array


def queue() -> Queue:
    """Return this user's jobs, in one call.

    Raises UserError when the controller does not answer: nothing may be concluded from silence.
    """
    answer = ask("squeue", "--noheader", "--array", "--me", "--format=%i|%T|%k")
    rows = (line.split("|", 2) for line in answer.splitlines())
    return {job: Queued(state, comment) for job, state, comment in rows}


def ask(*command: str) -> str:
    """Return what a SLURM program prints.

    Raises UserError with its own words when it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed here: not a machine of a cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not answer in 120 seconds; try again later") from None
    if done.returncode:
        raise UserError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def this_job() -> str | None:
    """Return the id of the job that this process belongs to, as `queue` writes it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")

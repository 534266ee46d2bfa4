"""What SLURM's controller says: which jobs wait or run, and whose they are.

`squeue` decides. `sacct` is late, often absent, and calls a requeued job dead: it is heard only as
a second witness, where squeue lists nothing at all. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

from segsweep.base.errors import UserError

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
FORMAT = "--format=segsweep|%i|%T|%k"
ROW = re.compile(r"segsweep\|([^|\n]+)\|([A-Z_]+)\|(.*)")  # whatever a site prints around it
HEADER = "JOBID"  # the id in squeue's first row: without that row it has not spoken
WITNESS = 20  # seconds that accounting may take to answer
SUBMISSION = "SEGSWEEP_SUBMISSION"  # set by our batch scripts: comment and number of their job


class Queued(NamedTuple):
    """A job that waits or runs: SLURM's word for its state, and the comment it was given."""

    state: str
    comment: str | None  # None where accounting keeps none

    @property
    def waiting(self) -> bool:
        """Say whether the job holds no node now."""
        return self.state in WAITING


TASK = ("RESTART_COUNT", "STEP_ID", "PROCID")
HIDDEN = Queued("HIDDEN", None)  # a job of somebody else, of which nothing can be known
Jobs = dict[str, Queued]  # by id, `123` or `123_4` for a task of an array


class Queue:
    """The jobs that wait or run: this user's, and those of others when they are asked for."""

    def __init__(self, mine: Jobs | None = None) -> None:
        self._jobs = {this_user(): mine or {}}
        self._hidden: set[str] = set()

    def of(self, user: str | None) -> Jobs:
        """Return the jobs of a user as far as they can be seen; None means this one."""
        user = user or this_user()
        if user not in self._jobs:
            self._jobs[user], hidden = _theirs(user)
            self._hidden |= {user} if hidden else set()
        return self._jobs[user]

    def find(self, job: str, comment: str | None, user: str | None = None) -> Queued | None:
        """Return what is said of a remembered job, None where it is gone.

        Ids begin again when a controller has lost its state: another comment is another job. One of
        a user whose jobs the site hides counts as living, as `HIDDEN`.
        """
        queued = self.of(user).get(job)
        if queued is not None and (None in (comment, queued.comment) or comment == queued.comment):
            return queued
        return HIDDEN if user in self._hidden else None

    def standing(self, job: Mapping[str, Any]) -> Queued | None:
        """Return what is said of the job that a `job.json` remembers, None where it is gone."""
        return self.find(job["id"], job.get("comment"), job.get("user"))

    def may_have(self, comment: str, user: str | None = None) -> bool:
        """Say whether jobs that were given a comment may wait or run."""
        return self.submitted(comment, user) is not None or user in self._hidden

    def submitted(self, comment: str, user: str | None = None) -> str | None:
        """Return the id of the job, or of the array, that was given a comment."""
        ids = (job for job, queued in self.of(user).items() if queued.comment == comment)
        return next(ids, "").split("_")[0] or None


def queue() -> Queue:
    """Return this user's jobs, in one call.

    Raises UserError when the controller does not answer: nothing may be concluded from silence.
    """
    return Queue(_listed("--me") or _listed("--me") or _accounted())


def _listed(*whose: str) -> Jobs:
    """Ask squeue, again where it ends well and says nothing: not even its header."""
    for _ in range(2):
        rows = ROW.findall(ask("squeue", "--array", FORMAT, *whose))
        jobs = {job: Queued(state, comment) for job, state, comment in rows}
        if jobs.pop(HEADER, None):
            return jobs
    raise UserError("squeue ended well but printed no list of jobs, twice; try again later")


def _accounted() -> Jobs:
    """Return the jobs that accounting calls running, none where there is no accounting."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--user={this_user()}"]
    command += ["--state=RUNNING", "--format=JobID,State,Comment"]
    with contextlib.suppress(UserError):
        rows = re.findall(r"^([\d_]+)\|RUNNING\|(.*)$", ask(*command, seconds=WITNESS), re.M)
        return {job: Queued("RUNNING", comment or None) for job, comment in rows}
    return {}


def _theirs(user: str) -> tuple[Jobs, bool]:
    """Return the jobs of somebody else, and whether those that are missing may be hidden."""
    try:
        uid = user if user.isdecimal() else str(pwd.getpwnam(user).pw_uid)
        return _listed(f"--user={uid}"), "jobs" in (setting("PrivateData") or "").split(",")
    except (UserError, KeyError, ValueError):  # no answer, nobody of that name, no name
        return {}, True


def setting(key: str) -> str | None:
    """Return a value of the cluster's configuration.

    Raises UserError when the controller does not answer.
    """
    shown = ask("scontrol", "show", "config")
    matched = re.search(rf"^{key}\s*=\s*(\S+)", shown, re.MULTILINE)
    return matched[1] if matched else None


def ask(*command: str, seconds: float = 120) -> str:
    """Return what a SLURM program prints; bytes that are no UTF-8 are replaced.

    Raises UserError with its own words when it fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds
        )
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed here: not a machine of a cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not answer in {seconds:g} seconds; try later") from None
    if done.returncode:
        raise UserError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def this_user() -> str:
    """Return the name of the user whose process this is; the number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def this_job() -> str | None:
    """Return the id of the job that this process belongs to, as `queue` writes it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def this_task() -> str:
    """Return how often the job of this process has begun anew, and which of its tasks this is."""
    restarts, *task = (os.environ.get(f"SLURM_{key}", "0") for key in TASK)
    return f"{restarts} {'.'.join(task)}"


def this_submission() -> str | None:
    """Return the comment of the job that this process belongs to, None if it is not known.

    A job that was submitted from within another one inherits its variables: the number tells.
    """
    comment, _, number = os.environ.get(SUBMISSION, "").partition(" ")
    return comment if comment and number == os.environ.get("SLURM_JOB_ID") else None

"""Which process an owner is, and whether it lives: asked of this machine, or of SLURM.

Machines and containers may share a host name. A kernel that has run since then knows its processes
by the table that they are in; another one is this machine started anew, if it has its id.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from functools import cache
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.queue import Queue, queue, this_job, this_submission, this_task, this_user

MACHINE = (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id"))


def process_started(pid: int) -> str | None:
    """Return when a process of this machine started (clock ticks), None if there is none.

    Empty where it lives and does not say: without /proc, or one of another user who is hidden.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if _alive(pid) else None
    return None if fields[0] == "Z" else fields[19]


def age() -> float:
    """Return for how many seconds this process has been running, 0 where nobody can tell."""
    ticks = process_started(os.getpid())
    if not ticks or not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def identity() -> dict[str, Any]:
    """Return what an owner's file says of this process."""
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "started_ticks": process_started(os.getpid()),
        "started": time.time(),
        "job": this_job(),
        "task": this_task() if this_job() else None,
        "submission": this_submission(),
        "user": this_user(),
    }


@cache
def machine() -> dict[str, str]:
    """Return the id of this machine, of its kernel since it started, and of the process table."""
    said = {"id": "", "boot": "", "processes": ""}
    for key, path in zip(said, MACHINE, strict=False):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            said[key] = path.read_text().strip()
    with contextlib.suppress(OSError):
        said["processes"] = os.readlink("/proc/self/ns/pid")
    return said


def is_here(owner: dict[str, Any]) -> bool:
    """Say whether this machine can be asked for the process of an owner."""
    mine = machine()
    said = owner.get("machine", mine)  # earlier versions told the host alone
    if owner["host"] != socket.gethostname() or not isinstance(said, dict):
        return False
    if said.get("boot") == mine["boot"]:
        return said.get("processes") == mine["processes"]
    return bool(mine["id"]) and said.get("id") == mine["id"]


def is_live(owner: dict[str, Any] | None, queue: Queue | None = None) -> bool:
    """Say whether the process that an owner file names still runs.

    A process of elsewhere cannot be asked: it lives while its job is in the queue. A job that is
    this one has begun anew. Where the queue is not known, or there is no job, it counts as live.
    """
    if owner is None:
        return False
    if is_here(owner):
        pid = owner["pid"]  # 0 and below are no process: to `kill` they mean many
        started = process_started(pid) if isinstance(pid, int) and pid > 0 else None
        return started is not None and started in ("", owner["started_ticks"])
    if owner.get("job") is None:
        return True
    return not begun_anew(owner) and (queue is None or _queued(owner, queue))


def begun_anew(owner: dict[str, Any]) -> bool:
    """Say whether an owner is of an earlier attempt of this job, and no other task of this one."""
    if owner.get("job") is None or owner["job"] != this_job():
        return False
    theirs, mine = str(owner.get("task")), this_task()
    return theirs == mine or theirs.partition(" ")[0] != mine.partition(" ")[0]


def lives(owner: dict[str, Any], silent: bool | None) -> bool:
    """Say whether an owner lives, by SLURM's word, too.

    One of elsewhere that is `silent` is dead, unless SLURM knows that its job is not.
    """
    known = None
    if owner.get("job") is not None and not is_here(owner):
        with contextlib.suppress(UserError):
            known = queue()
    if silent and not is_here(owner) and not (known and _queued(owner, known)):
        return False
    return is_live(owner, known)


def _queued(owner: dict[str, Any], queue: Queue) -> bool:
    return queue.find(owner["job"], owner.get("submission"), owner.get("user")) is not None


def named(owner: dict[str, Any]) -> str:
    """Return who an owner is: its process, and its user and job where they are not ours."""
    process = f"process {owner['pid']} on {owner['host']}"
    user, job = owner.get("user") or this_user(), owner.get("job")
    what = f"job {job}" if job else "process"
    return process if user == this_user() else f"{process} ({user}'s {what}: ask {user})"

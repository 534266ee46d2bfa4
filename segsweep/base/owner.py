"""Directories owned by one process at a time.

Only rename and link(2) are used, which hold on network file systems; no locks, no database.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.base.queue import Queue, queue, this_job

ENDING = 60  # seconds that SLURM may need to end what it has begun anew


def process_started(pid: int) -> str | None:
    """Return when a process of this machine started (clock ticks), None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if not Path("/proc/self").exists() and _alive(pid) else None
    return None if fields[0] == "Z" else fields[19]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_live(owner: dict[str, Any] | None, queue: Queue | None = None) -> bool:
    """Say whether the process that an owner file names still runs.

    A process of another host cannot be asked: it lives while its job is in the queue. A job that
    is this one has begun anew. Where the queue is not known, or there is no job, it counts as live.
    """
    if owner is None:
        return False
    if owner["host"] == socket.gethostname():
        return process_started(owner["pid"]) == owner["started_ticks"]
    job = owner.get("job")
    if job is None:
        return True
    return job != this_job() and (queue is None or job in queue)


class Busy(UserError):
    """Somebody else is at work in a directory."""


def _queue(owner: dict[str, Any]) -> Queue | None:
    """Return the queue where it decides whether an owner lives, None where SLURM is silent."""
    if owner.get("job") is not None and owner["host"] != socket.gethostname():
        with contextlib.suppress(UserError):
            return queue()
    return None


def _put_aside(path: Path, stale: Path, dead: dict[str, Any] | None) -> None:
    """Take away the file of a dead owner, unless it changed hands since it was read."""
    with contextlib.suppress(FileNotFoundError):
        path.rename(stale)
        if read_json(stale) != dead:
            with contextlib.suppress(FileExistsError):
                os.link(stale, path)
        stale.unlink()


def _link(owner: dict[str, Any]) -> str:
    """Return the name under which an owner wrote its file, before it was linked."""
    return f".owner.{owner['host']}.{owner['pid']}"


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Own a directory while inside; a dead owner is replaced.

    An earlier attempt of this job is waited for: SLURM is ending it.
    Raises Busy when a live process owns it, or one of which nothing can be known.
    """
    directory.mkdir(parents=True, exist_ok=True)
    identity = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_ticks": process_started(os.getpid()),
        "started": time.time(),
        "job": this_job(),
    }
    path, mine = directory / "owner", directory / _link(identity)
    mine.write_text(json.dumps(identity))
    end = time.monotonic() + ENDING
    try:
        while True:
            try:
                os.link(mine, path)
                break
            except FileExistsError:
                other = read_json(path)
                if other is not None and is_live(other) and is_live(other, _queue(other)):
                    if other.get("job") == this_job() is not None and time.monotonic() < end:
                        time.sleep(0.5)
                        continue
                    raise Busy(
                        f"{directory} belongs to process {other['pid']} on {other['host']}; "
                        f"if that process is gone, delete {path}"
                    ) from None
                _put_aside(path, mine.with_suffix(".stale"), other)
                if other is not None and (left := directory / _link(other)) != mine:
                    left.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.exists() and path.samefile(mine):
                path.unlink()
        mine.unlink(missing_ok=True)

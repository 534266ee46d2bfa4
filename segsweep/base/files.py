"""Files that survive: written whole or not at all, owned by one process at a time.

Only rename and link(2) are used, which hold on network file systems; no locks, no database.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.queue import Queue, queue, this_job

ENDING = 60  # seconds that SLURM may need to end what it has begun anew


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Name a temporary file beside `path` to fill; then sync it to disk and move it there.

    Raises OSError (disk full ...) and leaves neither a torn file nor the temporary one behind.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file that appears whole or not at all, as `atomically` does."""
    with atomically(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinities are refused, they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any | None:
    """Read a JSON file, None where it is absent; opened rather than asked for (NFS caches)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


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

"""Directories owned by one process at a time.

    owner.1, owner.2, ...   one file per attempt to work there; the highest number owns

An attempt reads the highest number N, sees that its process is dead or has let go, and makes
owner.N+1 by link(2), which one process can do once: numbers are never deleted, so none is given
twice, however long somebody slept between reading and linking. Whoever comes later finds N+1.

An owner looks for a number above its own before each of its writes (`Ownership.check`), and what
it writes lies in a temporary file, named by its number, before it is renamed. A new owner deletes
such files of earlier numbers before it does anything else. So a process that wakes up after it
was replaced has renamed its file before the new owner began, or finds it gone.

Only rename and link(2) are used, which hold on network file systems; no locks, no database.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import atomically, read_json
from segsweep.base.process import begun_anew, identity, lives, named

ENDING = 60  # seconds that SLURM may need to end what it has begun anew
BEAT = 30  # seconds between two signs of life
ATTEMPT = re.compile(r"owner\.([1-9]\d*)")
LEFT = re.compile(r"\..*\.owner\.(\d+)\.tmp|\.owner\.\w+\.tmp")  # by owners, and on their way
EARLIER = "owner"  # the one file of earlier versions: attempt 0
OWNER = {  # what is told to stop must be a process: 0 and -1 would be many
    "host": str,
    "pid": range(1, 2**31),
    "started_ticks": str,
    "started": float,
    "machine?": {...: str},
    **dict.fromkeys(("job?", "task?", "submission?", "user?"), str | None),
}
HEIR = "SEGSWEEP_HEIR"  # set for a process that is to follow owners: their files
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Beat = tuple[int, int]
"""Number and time (ns) of an owner's last sign of life: another one is a newer sign."""


class Busy(UserError):
    """Somebody else is at work in a directory."""


class LostOwnership(Busy):
    """Somebody else has taken over a directory that this process owned."""


def attempts(directory: Path) -> int:
    """Return how often a directory was owned: the number of its last owner, 0 if there is none."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    return max((int(found[1]) for name in names if (found := ATTEMPT.fullmatch(name))), default=0)


def owner_of(directory: Path) -> dict[str, Any] | None:
    """Return what the owner of a directory says of itself, dead or alive.

    None where nobody has owned it, or the last one has let go. Raises Damaged for what is no file
    of an owner.
    """
    return _held(_read(_file(directory, attempts(directory))))


def beat_of(directory: Path) -> Beat | None:
    """Return the last sign of life of the owner of a directory, None where there is none.

    An owner gives one every `BEAT` seconds. Clocks differ: only whether it changes tells something.
    """
    number = attempts(directory)
    with contextlib.suppress(FileNotFoundError):
        if _held(_read(path := _file(directory, number))):
            return number, path.stat().st_mtime_ns
    return None


def _file(directory: Path, number: int) -> Path:
    return directory / (f"owner.{number}" if number else EARLIER)


def _read(path: Path) -> dict[str, Any] | None:
    """Read an owner's file, None where it is absent. Raises Damaged for what is none."""
    return read_json(path, OWNER, "if no process works there, delete it")


def _held(owner: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if owner is None or "released" in owner else owner


@dataclass(frozen=True)
class Ownership:
    """A directory that this process owns, until it lets go or somebody takes over."""

    directory: Path
    number: int
    identity: dict[str, Any]  # what the owner's file says

    @property
    def path(self) -> Path:
        """The owner's file."""
        return _file(self.directory, self.number)

    def check(self) -> None:
        """Raise LostOwnership when the directory was taken over."""
        later = _file(self.directory, self.number + 1)
        if later.exists() or read_json(self.path) != self.identity:
            raise LostOwnership(f"another process took over {self.directory}; this one ends")

    @contextlib.contextmanager
    def atomically(self, path: Path) -> Iterator[Path]:
        """Fill a file of the directory as `files.atomically` does, but only as its owner.

        Raises LostOwnership, and leaves the file alone, when the directory was taken over.
        """
        try:
            with atomically(path, mark=f"owner.{self.number}") as temporary:
                yield temporary
                self.check()
        except OSError:  # of a temporary file that the new owner has deleted
            self.check()
            raise

    def beat(self, released: threading.Event) -> None:
        """Give signs of life."""
        while not released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Let go: the file stays, and says so."""
        released = self.identity | {"released": time.time()}
        with contextlib.suppress(OSError, LostOwnership), self.atomically(self.path) as temporary:
            temporary.write_text(json.dumps(released), encoding="utf-8")

    def clean(self) -> None:
        """Delete what earlier owners had not finished, and can finish no more."""
        for path in self.directory.glob(".*.tmp"):
            left = LEFT.fullmatch(path.name)
            if left and int(left[1] or 0) < self.number:
                path.unlink(missing_ok=True)
        (self.directory / EARLIER).unlink(missing_ok=True)


@contextlib.contextmanager
def owned(directory: Path, silent: Beat | None = None) -> Iterator[Ownership]:
    """Own a directory while inside; a dead owner is replaced.

    An earlier attempt of this job is waited for: SLURM is ending it. A launcher that started this
    process for the purpose (`HEIR`) is followed while it lives, so that nobody comes in between.

    Args:
        directory: made where it is not there.
        silent: a beat that has not changed for so long that the owner of it, on a host that cannot
            be asked, counts as dead.

    Raises:
        Busy: a live process owns it, or one of which nothing can be known.
        UserError: the file system has no hard links, or the file of the last owner is damaged.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ownership = _take(directory, silent)
    released = threading.Event()
    try:
        ownership.clean()
        threading.Thread(target=ownership.beat, args=(released,), daemon=True).start()
        yield ownership
    finally:
        released.set()
        ownership.release()


def _take(directory: Path, silent: Beat | None) -> Ownership:
    """Become the owner: who reads itself in the file of a number is the one who made it."""
    mine = identity()
    number, end = attempts(directory), time.monotonic() + ENDING
    temporary = directory / f".owner.{uuid.uuid4().hex}.tmp"
    try:
        while True:
            path = _file(directory, number)
            seen = _read(path)
            if seen == mine:
                return Ownership(directory, number, mine)
            other = _held(seen)
            followed = str(path.absolute()) in os.environ.get(HEIR, "").split(os.pathsep)
            if other and not followed and lives(other, silent and silent == beat_of(directory)):
                if begun_anew(other) and time.monotonic() < end:
                    time.sleep(0.5)
                    continue
                raise Busy(
                    f"{directory} belongs to {named(other)}; if that process is gone, delete {path}"
                )
            temporary.write_text(json.dumps(mine), encoding="utf-8")
            if _linked(temporary, _file(directory, number + 1)):
                number += 1
    except OSError as error:
        error.filename = error.filename or str(directory)  # a full disk does not say which
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, path: Path) -> bool:
    """Link a file unless there is one; False when the new owner has cleaned the temporary away."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise UserError(
            f"{path.parent}: this file system has no hard links ({error.strerror}), by which one "
            "process at a time works in a folder; name a folder on another one (io.results=..., "
            "for data sets data.cache=...)"
        ) from error

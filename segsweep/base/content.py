"""What a file holds, known by its SHA-256; large files are read once while they do not change."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import sha256, write_text

FRESH = 2 * 10**9  # nanoseconds in which a file may change and keep its time of change


def cache_dir() -> Path:
    """Return the folder of what can be had again: downloads, hashes of files."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segsweep"


def content_of(file: Path) -> str:
    """Return the SHA-256 of a file, as it was when its size and times were those of now.

    Raises UserError for a file that cannot be read.
    """
    try:
        stat = file.stat()
        state = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        if time.time_ns() - max(state[1:]) < FRESH:
            return sha256(file)
        return _remembered(file.resolve(), state)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=256)
def _remembered(file: Path, state: tuple[int, ...]) -> str:
    """Return the hash that any process computed of a file in this state."""
    memo = cache_dir() / ".hashes" / hashlib.sha256(str(file).encode()).hexdigest()[:16]
    now = " ".join(map(str, state))
    with suppress(OSError, ValueError):
        then, _, digest = memo.read_text(encoding="utf-8").rpartition(" ")
        if then == now:
            return digest
    digest = sha256(file)
    with suppress(OSError):  # it only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, f"{now} {digest}")
    return digest

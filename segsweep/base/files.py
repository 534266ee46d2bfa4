"""Files that survive: written whole or not at all, by rename (network file systems keep it)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomically(path: Path, mark: str = "") -> Iterator[Path]:
    """Name a temporary file beside `path` to fill; then sync it to disk and move it there.

    `mark` stands in its name for this process. Raises OSError (disk full ...) and leaves neither a
    torn file nor the temporary one behind.
    """
    mark = mark or f"{socket.gethostname()}.{os.getpid()}"
    temporary = path.with_name(f".{path.name}.{mark}.tmp")
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
    """Write a JSON file atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return a value as JSON files hold it; NaN and infinities are refused, they are not JSON."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any | None:
    """Read a JSON file, None where it is absent; opened rather than asked for (NFS caches)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The folder of a run: who may write there, and whether its files are what its record describes.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import sha256
from segsweep.base.owner import Beat, Ownership, owned

CHECKPOINT = "last.ckpt"
CURVE = "metrics.jsonl"
DELTA = "delta.safetensors"
PREDICTIONS = "predictions.jsonl.gz"
ATTEMPTS = "attempts.json"
ELSEWHERE = "elsewhere"  # folder beside that of the runs: what they find on other data
DESCRIBED = (DELTA, PREDICTIONS, CURVE)  # by a record, with their hashes
OWN_FILES = ("record.json", "failed.json", ATTEMPTS, CHECKPOINT, *DESCRIBED)
AGAIN = "bring that file back, or give the command line of the run again with force=true"


class RunFolder:
    """A folder that is written by its owner alone, each file whole or not at all."""

    directory: Path
    ownership: Ownership | None = None  # while this process owns it

    @contextmanager
    def owning(self, silent: Beat | None = None) -> Iterator[Ownership]:
        """Own the folder while inside, also where this process does already; see `owned`.

        Raises Busy when another process is at work there.
        """
        if self.ownership is not None:
            yield self.ownership
            return
        with owned(self.directory, silent) as self.ownership:
            try:
                yield self.ownership
            finally:
                self.ownership = None

    def check(self) -> None:
        """Raise LostOwnership when another process has taken over what this one owned."""
        if self.ownership is not None:
            self.ownership.check()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Name a temporary file to fill; then it becomes the file of that name.

        Raises Busy, LostOwnership and OSError (disk full ...), and leaves the file alone then.
        """
        with self.owning() as mine, mine.atomically(self.directory / name) as temporary:
            yield temporary

    def write(self, name: str, content: bytes) -> None:
        """Write a file, as `writing` does."""
        with self.writing(name) as temporary:
            temporary.write_bytes(content)

    def delete(self, *names: str) -> None:
        """Delete files, where they are. Raises Busy and LostOwnership."""
        with self.owning() as mine:
            for name in names:
                mine.check()
                (self.directory / name).unlink(missing_ok=True)


def file_facts(directory: Path) -> dict[str, dict[str, Any]]:
    """Return what a record says of the files that it describes: size in bytes and hash."""
    paths = [path for name in DESCRIBED if (path := directory / name).exists()]
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths}


def known_hash(record: dict[str, Any], name: str) -> str | None:
    """Return the hash of a file by a record; None where it has none, as in earlier versions."""
    files = record.get("files")
    if files is None and name == PREDICTIONS:  # earlier versions hashed this one alone
        return (record.get("predictions") or {}).get("sha256")
    return (files or {}).get(name, {}).get("sha256")


def verified(directory: Path, record: dict[str, Any], name: str, cure: str = AGAIN) -> Path:
    """Return a file of a finished run that is what the run's record describes.

    Raises UserError, which ends with the cure, for a file that is gone or another one.
    """
    path, known = directory / name, known_hash(record, name)
    if not path.is_file():
        raise UserError(f"{path} is gone (deleted by `prune`, or not copied along); {cure}")
    if known is not None and (now := sha256(path)) != known:
        raise UserError(
            f"{path} is not the file that record.json describes (sha256 {now[:12]}..., recorded "
            f"{known[:12]}...); {cure}"
        )
    return path

"""Whole runs of the tiny model: how they are started, watched and compared."""

import contextlib
import hashlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segsweep.base.owner import owned

TINY = [
    "data.train=12", "data.val=4", "hparams.batch_size=4", "hparams.epochs=3", "peft.rank=2",
    "io.log_every=1", "io.save_every=1", "model.weights=null",
]  # fmt: skip
STEPS = 9


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a run but for those of its owners."""
    return {p.name: p.read_bytes() for p in directory.glob("*") if not p.match("owner.*")}


def left_owner(directory: Path, **changes: Any) -> None:
    """Leave the file of an owner that never let go, and is this process but for some changes."""
    with owned(directory) as mine:
        pass
    other = directory / f"owner.{mine.number + 1}"
    other.write_text(json.dumps(mine.identity | changes))


def the_run(folder: Path) -> Path:
    """The directory of the only run below a folder."""
    (directory,) = (folder / "results" / "runs").glob("[!.]*")
    return directory


def result(folder: Path) -> tuple[str, dict]:
    """Hash of the trained tensors, and all values of the record."""
    directory = the_run(folder)
    record = json.loads((directory / "record.json").read_text())
    digest = hashlib.sha256((directory / "delta.safetensors").read_bytes()).hexdigest()
    return digest, record["metrics"]


def curve(folder: Path) -> list[dict]:
    """All lines of the curve without their times."""
    lines = (the_run(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def logged_steps(folder: Path) -> int:
    """The last step in the curve, 0 if there is none."""
    try:
        lines = (the_run(folder) / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""Files of runs that no result needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.run import predictions
from segsweep.run.identity import LIVE, Run, State
from segsweep.run.restore import load


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may go."""

    kind: str
    path: Path
    size: int  # bytes
    why: str


def leftovers(states: Mapping[Path, State], results: Path | None) -> list[Leftover]:
    """Find what of runs may go; below `results` also caches, unless a run may need them now."""
    files = [file for run, state in states.items() for file in _of_run(run, state)]
    if results is not None and not {*LIVE} & {*states.values()}:
        files += _existing("features", results / "features", "can be computed again")
    return files


def _of_run(run: Path, state: State) -> Iterator[Leftover]:
    """Find what of one run may go. Runs that wait, run or can go on are left alone."""
    if state not in (State.DONE, State.FAILED):
        return
    why = "superseded" if _superseded(run) else state.value
    if why != State.DONE.value:
        yield from _existing("delta", run / "delta.safetensors", why)
        yield from _existing("predictions", run / predictions.FILE, why)
    yield from _existing("checkpoint", run / "last.ckpt", why)
    if (run / "wandb.json").exists():
        yield from _existing("wandb", run / "wandb", "sent")


def _superseded(run: Path) -> bool:
    """Say whether the config of a run now names another run; what cannot be asked is not."""
    try:
        return Run(load(run)).name != run.name
    except Exception:  # data that are gone, a config of a version that knew other keys
        return False


def _existing(kind: str, path: Path, why: str) -> Iterator[Leftover]:
    if path.exists():
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        yield Leftover(kind, path, sum(file.lstat().st_size for file in files), why)


def delete(path: Path) -> None:
    """Delete a file or a folder.

    Raises UserError when it cannot be.
    """
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be deleted ({error.strerror})") from error

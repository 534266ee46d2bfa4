"""Files of runs that no result needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from segsweep.base.config import Config
from segsweep.base.errors import Damaged, UserError, told
from segsweep.base.files import read_json
from segsweep.base.owner import Busy, attempts, owned
from segsweep.base.queue import Queue
from segsweep.run.folder import CHECKPOINT, DELTA, PREDICTIONS
from segsweep.run.identity import LIVE, Run, State, state_of
from segsweep.run.restore import load
from segsweep.run.shapes import record_of

FOLDERS = ("features", "wandb")  # kinds of leftovers; whatever lies in place of a file stays


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may go."""

    kind: str
    path: Path
    size: int  # bytes
    why: str
    attempt: int | None = None  # of a run: the last one when it was looked at


def leftovers(
    runs: Iterable[Path], queue: Queue | None, results: Path | None
) -> tuple[list[Leftover], list[str]]:
    """Find what of runs may go, and name those that cannot be read.

    Runs that wait, run or can go on are left alone, and so are those whose state is unreadable.
    Below `results` also caches may go, unless a run may need them now.
    """
    files: list[Leftover] = []
    unreadable: list[str] = []
    needed = False
    for run in runs:
        attempt = attempts(run)
        try:
            state = state_of(run, queue)
            if state is State.DONE:
                record_of(run)  # what it describes stays
        except Damaged as damage:
            unreadable.append(f"{run.name} is left alone: {damage}")
            needed = True
            continue
        needed = needed or state in LIVE
        if state in (State.DONE, State.FAILED):
            why = state.value
            try:
                why = "superseded" if _superseded(run, load(run)) else why
            except UserError as error:
                reason = str(error).splitlines()[0]
                unreadable.append(f"{run.name} may be superseded, but its config: {reason}")
            files += [replace(file, attempt=attempt) for file in _of_run(run, why)]
    if results is not None and not needed:
        files += _existing("features", results / "features", "can be computed again")
    return files, unreadable


def _of_run(run: Path, why: str) -> Iterator[Leftover]:
    if why != State.DONE.value:
        yield from _existing("delta", run / DELTA, why)
        yield from _existing("predictions", run / PREDICTIONS, why)
    yield from _existing("checkpoint", run / CHECKPOINT, why)
    if (run / "wandb.json").exists():
        yield from _existing("wandb", run / "wandb", "sent")


def _superseded(run: Path, config: Config) -> bool:
    """Say whether the config of a run now names another run; what cannot be asked is not.

    Nor are runs whose record does not say which base weights were read: they have names of an
    earlier version, and no other run took their place.
    """
    try:
        known = read_json(run / "record.json") or {}
        return "weights" in known and Run(config).name != run.name
    except (UserError, OSError):  # data that are gone
        return False


def _existing(kind: str, path: Path, why: str) -> Iterator[Leftover]:
    folder = kind in FOLDERS and path.is_dir()
    if folder or path.is_file():
        files = [p for p in path.rglob("*") if p.is_file()] if folder else [path]
        yield Leftover(kind, path, sum(file.lstat().st_size for file in files), why)


def delete(files: Iterable[Leftover]) -> Iterator[str]:
    """Delete files and folders, those of a run as its owner; yield what is left alone, and why."""
    for (folder, attempt), group in groupby(files, lambda file: (file.path.parent, file.attempt)):
        try:
            with nullcontext() if attempt is None else owned(folder) as mine:
                if mine is not None and mine.number - 1 != attempt:
                    raise Busy("it has begun again")
                for file in group:
                    _delete(file.path)
        except (Damaged, Busy) as error:
            yield f"{folder.name} is left alone: {error}"
        except OSError as error:
            yield f"{folder.name} is left alone: {told(error) or error}"


def _delete(path: Path) -> None:
    path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)

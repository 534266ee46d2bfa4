"""The verb `prune`: give back the disk space of what no result needs any more.

    python -m segsweep prune             show what would go, and why
    python -m segsweep prune table2 --yes

    checkpoint   last.ckpt of runs that failed (a retry begins anew), are done or superseded
    delta        weights of runs that failed or are superseded
    predictions  of such runs
    features     caches of backbone features, computed again where needed (not with a choice)
    wandb        local files of Weights & Biases of runs that `sync` has sent

Records, curves and configs stay, and so does all of runs that wait, run or can go on. A run is
superseded when its config now names another run, because its data or a default changed: no command
line finds it again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.terminal import aligned, human
from segsweep.run import predictions
from segsweep.run.identity import LIVE, Run, State, state_of
from segsweep.run.restore import load
from segsweep.sweep.names import chosen
from segsweep.sweep.status import jobs


@dataclass(frozen=True)
class Waste:
    """A file or folder that may go."""

    kind: str
    path: Path
    size: int  # bytes
    why: str


def main(argv: list[str] | None = None) -> int:
    """Show what may go; delete it with `--yes`."""
    parser = argparse.ArgumentParser("python -m segsweep prune", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders; default: all runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--yes", action="store_true", help="delete; without, nothing is touched")
    options = parser.parse_args(argv)
    runs = chosen(options.results, options.what)
    queue = jobs(runs)
    states = {run: state_of(run, queue) for run in runs}
    found = [w for run, state in states.items() for w in waste(run, state)]
    if not options.what and not {*LIVE} & {*states.values()}:
        found += _existing("features", [options.results / "features"], "can be computed again")
    if found:
        print(*aligned([(human(w.size), w.kind, w.why, str(w.path)) for w in found]), sep="\n")
    for one in found if options.yes else ():
        delete(one.path)
    total = human(sum(one.size for one in found))
    done = "deleted" if options.yes else "to delete" + (" (--yes does it)" if found else "")
    print(f"{len(runs)} runs: {len(found)} leftovers, {total} {done}")
    return 0


def waste(run: Path, state: State) -> Iterator[Waste]:
    """Find what of one run may go. Runs that wait, run or can go on are left alone."""
    if state not in (State.DONE, State.FAILED):
        return
    why = "superseded" if superseded(run) else state.value
    if why != State.DONE.value:
        yield from _existing("delta", [run / "delta.safetensors"], why)
        yield from _existing("predictions", [run / predictions.FILE], why)
    yield from _existing("checkpoint", [run / "last.ckpt"], why)
    if (run / "wandb.json").exists():
        yield from _existing("wandb", [run / "wandb"], "sent")


def superseded(run: Path) -> bool:
    """Say whether the config of a run now names another run; what cannot be asked is not."""
    try:
        return Run(load(run)).name != run.name
    except Exception:  # data that are gone, a config of a version that knew other keys
        return False


def _existing(kind: str, paths: list[Path], why: str) -> Iterator[Waste]:
    for path in paths:
        if path.exists():
            yield Waste(kind, path, size_of(path), why)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files)


def delete(path: Path) -> None:
    """Delete a file or a folder.

    Raises UserError when it cannot be.
    """
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be deleted ({error.strerror})") from error

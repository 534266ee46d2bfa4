"""Stands in for Python in jobs (`hydra.launcher.python`), and keeps count of what they do.

It is `python -m segsweep`, except that every run notes in its file `marks` when it began and when
it was published, and that runs of the frozen base, which train nothing, sleep COUNTED_SECONDS
(default 2) instead of being evaluated: they need neither torch nor a processor. First attempts of
other runs are SETUP_SECONDS longer in their set-up, if that is set, and note when it begins.

Where it may, a process takes the host name of its node: one shared name would hide what happens
between machines.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segsweep import story
from segsweep.__main__ import main
from segsweep.base.signals import Stopped, wish
from segsweep.run.identity import Run
from segsweep.sweeps import warm

PYTHON = f"{sys.executable} {Path(__file__).resolve()}"
LAUNCHER = ["hydra/launcher=slurm", f"hydra.launcher.python='{PYTHON}'"]

CLONE_NEWUTS = 0x04000000  # sched.h: names of hosts of its own

Train = Callable[[Run], dict[str, Any]]
publish, real = Run._train, story.train


def marks(directory: Path, kind: str) -> list[float]:
    """Return when a run began, or was done (seconds since 1970)."""
    path = directory / "marks"
    lines = [line.rsplit(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
    return [float(when) for what, when in lines if what == kind]


def mark(run: Run, kind: str) -> None:
    with (run.directory / "marks").open("a") as file:  # one write of a few bytes: never torn
        file.write(f"{kind} {time.time()}\n")


def counted(run: Run, train: Train) -> dict[str, Any]:
    mark(run, "begun")
    record = publish(run, train)
    mark(run, "done")
    return record


def sleep_or_train(run: Run) -> dict[str, Any]:
    if run.config.peft.name != "frozen":
        if len(marks(run.directory, "begun")) == 1 and "SETUP_SECONDS" in os.environ:
            mark(run, "setting up")
            time.sleep(float(os.environ["SETUP_SECONDS"]))
        return real(run)
    wish.train()
    seconds = float(os.environ.get("COUNTED_SECONDS", "2"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        if wish.asked:
            raise Stopped(wish.asked)
    return {"metrics": {}, "seconds": {"total": seconds}}


def on_its_node() -> None:
    """Give this process the host name of its node, where it may: nodes share one machine here."""
    node = os.environ.get("SLURMD_NODENAME")
    if node and os.geteuid() == 0 and ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname(node)


if __name__ == "__main__":
    on_its_node()
    Run._train, story.train = counted, sleep_or_train
    if "segsweep.sweeps.warm" in sys.argv:  # what forks runs
        warm.load = lambda: None
        warm.main()
    else:
        sys.argv = ["segsweep", *sys.argv[sys.argv.index("segsweep") + 1 :]]
        main()

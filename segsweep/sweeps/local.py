"""Runs as processes of this machine: as many at once as it has places for.

Each run is `python -m segsweep work DIR` in a session of its own, so that Ctrl-C reaches it through
the pool, once; all but the first find what they import in memory (sweeps/warm.py). What it says
goes to its `log.txt`. A run that fails stops no other. No torch is imported here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from segsweep.base.errors import Damaged, UserError, told
from segsweep.base.owner import HEIR, Busy, Ownership, attempts
from segsweep.base.queue import Queue
from segsweep.base.signals import Stopped, leave, wish
from segsweep.run.alike import packs
from segsweep.run.identity import Run, State
from segsweep.sweeps.board import Board
from segsweep.sweeps.warm import Forked, Starter

MOST = 8  # runs at once on the CPU unless said otherwise; each holds a model in memory
TICK = 0.2  # seconds
LOOK = 2.0  # seconds between two looks at a run that somebody else trains
OVER = (State.DONE, State.FAILED)


@dataclass
class Local:
    """How many runs train at once on this machine."""

    workers: int | None = None  # on the CPU; default: one per core, at most 8
    jobs_per_gpu: int = 1
    pack: int = 1  # runs that share one process and one pass of what is frozen (run/pack.py)

    def __post_init__(self) -> None:
        """Refuse values that could only hang."""
        for key in ("workers", "jobs_per_gpu", "pack"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"hydra.launcher.{key}={value}: must be at least 1")


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for word in visible.split(",") if (name := word.strip()) not in ("", "-1")]
    try:
        command = ["nvidia-smi", "-L"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    parts = re.findall(r"UUID: (MIG-[^)]+)\)", listing.stdout)  # of GPUs that are cut in parts
    return parts or re.findall(r"^GPU (\d+):", listing.stdout, re.MULTILINE)


class Slots:
    """What runs take while they train: CPU places, or places on distinct GPUs."""

    def __init__(self, options: Local, runs: int) -> None:
        self.workers = options.workers or min(runs, MOST, cores())
        self.free = {"cpu": self.workers} | dict.fromkeys(gpus(), options.jobs_per_gpu)
        self.gpus = [name for name in self.free if name != "cpu"]
        slots = max(self.workers, options.jobs_per_gpu * len(self.gpus))
        self.threads = max(1, cores() // slots)

    def needed(self, run: Run) -> tuple[list[str], int]:
        """Return what a run can be given, and how much of it.

        Raises UserError for a run that this machine can never train.
        """
        trainer = run.config.trainer
        if trainer.nodes > 1:
            raise UserError(f"trainer.nodes={trainer.nodes}: needs hydra/launcher=slurm")
        if trainer.accelerator.name == "cpu" or not self.gpus:
            return ["cpu"] * min(trainer.devices, self.workers), min(trainer.devices, self.workers)
        if trainer.devices > len(self.gpus):
            raise UserError(
                f"trainer.devices={trainer.devices}: this machine has {len(self.gpus)} GPUs"
            )
        return self.gpus, trainer.devices

    def take(self, run: Run) -> list[str] | None:
        """Take what a run needs; None while it is not free."""
        names, count = self.needed(run)
        if names[0] == "cpu":
            taken = names if self.free["cpu"] >= count else []
        else:
            free = sorted((g for g in names if self.free[g]), key=lambda g: -self.free[g])
            taken = free[:count] if len(free) >= count else []
        for name in taken:
            self.free[name] -= 1
        return taken or None

    def give_back(self, taken: Sequence[str]) -> None:
        """Give back what a run took."""
        for name in taken:
            self.free[name] += 1


def train_all(labels: Mapping[Run, str], options: Local) -> dict[Run, State]:
    """Train runs, each in a process; return how each ended.

    One that somebody else trains is waited for, and goes on here if it was left unfinished. A
    signal stops all of ours with checkpoints, and is raised as `Stopped`.
    """
    others = {pack[0]: pack[1:] for pack in packs(labels, options.pack)}
    places = Slots(options, len(others))
    for run in labels:
        places.needed(run)
    board = Board({run.directory: label for run, label in labels.items()})
    ended: dict[Run, State] = {}
    waiting = dict.fromkeys(others, 0.0)  # to the time of the next look, 0: nobody else has it
    try:
        with (
            wish.listening(), board, Starter(places.threads) as starter, stopping() as processes
        ):  # fmt: skip
            while waiting or processes:
                for run in [run for run, when in waiting.items() if when <= time.monotonic()]:
                    if waiting[run] and (state := state_or_failed(run)) in OVER:
                        del waiting[run]
                        ended[run] = state
                        board.end(run.directory, state)
                    elif (taken := places.take(run)) is not None:
                        del waiting[run]
                        processes[run] = Process(run, taken, starter, others.pop(run, ()))
                        for member in processes[run].members:
                            board.begin(member.directory)
                for first, process in [item for item in processes.items() if item[1].over()]:
                    places.give_back(processes.pop(first).taken)
                    waiting |= dict.fromkeys(process.left, 0.0)
                    for run in process.members:
                        state = state_or_failed(run)
                        if state is State.RUNNING or (process.busy and state not in OVER):
                            waiting[run] = time.monotonic() + LOOK
                            board.leave(run.directory)
                        else:
                            ended[run] = State.FAILED if process.fault else state
                            board.end(run.directory, ended[run])
                board.tick()
                time.sleep(TICK)
    except Stopped as stopped:
        leave(stopped)
        raise
    return ended


def state_or_failed(run: Run, queue: Queue | None = None) -> State:
    """Return the state of a run that was begun; one whose files cannot be read has failed."""
    try:
        return run.state(queue)
    except Damaged:
        return State.FAILED


class Process:
    """A run that trains in a process of its own, which takes the run over from this one.

    With `others` it is a pack; those of them that cannot begin are left.
    """

    def __init__(
        self, run: Run, taken: list[str], starter: Starter, others: Sequence[Run] = ()
    ) -> None:
        self.run, self.taken = run, taken
        self.members, self.left = [run], list[Run]()
        self.process: Forked | subprocess.Popen[bytes] | None = None
        self.began = False  # whether it has, or had, taken over
        self.fault = ""  # why it cannot begin; the others go on
        try:
            self._begin(starter, others)
        except Busy:  # somebody else trains it, or is about to
            return
        except (Damaged, OSError) as error:
            self.fault = (isinstance(error, OSError) and told(error)) or str(error)
            print(f"{run.name} cannot begin: {self.fault}", flush=True)

    def _begin(self, starter: Starter, others: Sequence[Run]) -> None:
        with ExitStack() as stack:
            self.left = list(others)  # until they have begun
            self.mine = stack.enter_context(self.run.owning())
            self.run.prepare()
            owners = [self.mine]
            for run in others:
                with suppress(Busy, Damaged, OSError):  # on its own it will say why
                    owners.append(stack.enter_context(run.owning()))
                    run.prepare()
                    self.members.append(run)
            self.left = [run for run in others if run not in self.members]
            self.process = self._start(starter, owners)
            self.claim = stack.pop_all()

    def _start(
        self, starter: Starter, owners: Sequence[Ownership]
    ) -> Forked | subprocess.Popen[bytes]:
        environment = {HEIR: os.pathsep.join(str(owner.path.absolute()) for owner in owners)}
        if self.taken[0] != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.taken)
        log = self.run.directory / "log.txt"
        if log.is_symlink():  # of a job
            log.unlink()
        return starter.start(["work", *(str(r.directory) for r in self.members)], environment, log)

    @property
    def busy(self) -> bool:
        """Say whether it never began, since somebody else was at work on the run."""
        return self.process is None and not self.fault

    @property
    def status(self) -> int | None:
        """The exit status, negative of a signal; None while it runs, or where there is none."""
        return None if self.process is None else self.process.returncode

    def over(self) -> bool:
        """Say whether the process has ended; then the run is nobody's."""
        if self.process is not None and self.process.poll() is not None:
            self.began = self.began or attempts(self.run.directory) > self.mine.number
            self.claim.close()
        return self.process is None or self.process.returncode is not None

    def stop(self) -> None:
        """Ask it to end with a checkpoint."""
        if self.process is not None and not self.over():
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started."""
        if self.process is not None and not self.over():
            with suppress(ProcessLookupError):  # its end is not told yet
                os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def stopping() -> Iterator[dict[Run, Process]]:
    """Keep the processes; whatever leaves the block early stops them, a second Ctrl-C at once."""
    processes: dict[Run, Process] = {}
    try:
        yield processes
    except BaseException:
        if processes:
            print(f"\nstopping {len(processes)} runs (Ctrl-C again stops at once)", flush=True)
        for process in processes.values():
            process.stop()
        try:
            while not all(process.over() for process in processes.values()):
                time.sleep(TICK)
        finally:
            for process in processes.values():
                process.kill()
        raise

"""A run is its config: identity, directory, state, and the one function that runs it once.

    results/runs/<model>-<peft>-<data>-<key>/
      config.yaml          the frozen, resolved config
      metrics.jsonl        the curve, one line per log
      last.ckpt            where an interrupted run goes on
      delta.safetensors    the trained tensors of the best epoch
      predictions.jsonl.gz what its evaluation found, image by image
      record.json          done: written last, atomically
      failed.json          why its last attempt failed or was interrupted
      owner.1, owner.2 ... the processes that wrote here; the last one may run it now
      job.json             the SLURM job it was submitted as
      log.txt              what it said, where a launcher started it

State is computed from these files and the queue, never stored. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import os
import subprocess
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from segsweep.base.config import SCHEMA, Config, Trainer, fingerprint, plain
from segsweep.base.errors import UserError
from segsweep.base.files import json_text
from segsweep.base.owner import owner_of
from segsweep.base.process import is_live
from segsweep.base.queue import Queue
from segsweep.base.signals import Stopped, leave, wish
from segsweep.run.folder import CHECKPOINT, CURVE, OWN_FILES, RunFolder, file_facts
from segsweep.run.shapes import failure_of, job_of, record_of

PACKAGES = ("segsweep", "torch", "torchvision", "timm", "pytorch-lightning", "hotcoco", "numpy")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class State(Enum):
    """What a run's files and the queue say."""

    NEW = "new"
    PENDING = "pending"  # submitted, not begun
    RUNNING = "running"
    INTERRUPTED = "interrupted"  # told to stop, or killed
    FAILED = "failed"
    LOST = "lost"  # its job is gone without a word: killed, out of memory, a node that died
    DONE = "done"


LIVE = (State.PENDING, State.RUNNING)


def state_of(directory: Path, queue: Queue | None = None) -> State:
    """Compute the state of a run from the files in its directory, and the queue if it is given.

    Without the queue, a submitted run that left no word counts as pending.

    Raises Damaged for a file that cannot be read: what it would have said decides.
    """
    if os.path.lexists(directory / "record.json"):  # also one that leads nowhere: not to be lost
        return State.DONE
    job = job_of(directory)
    if queue is not None and job is not None and (queued := queue.standing(job)):
        return State.PENDING if queued.waiting else State.RUNNING
    owner = owner_of(directory)
    if is_live(owner, queue):
        return State.RUNNING
    failure = failure_of(directory)  # submission and each attempt delete it first
    if failure is not None:
        return State.FAILED if failure["status"] == "failed" else State.INTERRUPTED
    if job is not None and not job.get("cancelled"):
        return State.PENDING if queue is None else State.LOST
    begun = owner or any((directory / file).exists() for file in (CURVE, CHECKPOINT))
    return State.INTERRUPTED if begun else State.NEW


class Run(RunFolder):
    """One run and its directory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.id = fingerprint(config)
        self.name = f"{config.model.name}-{config.peft.name}-{config.data.name}-{self.id}"
        self.directory = Path(config.io.results) / "runs" / self.name

    def state(self, queue: Queue | None = None) -> State:
        """Compute this run's state."""
        return state_of(self.directory, queue)

    def finished(self) -> bool:
        """Say whether there is nothing to do. Raises Damaged where its files do not say it."""
        if self.config.force or self.state() is not State.DONE:
            return False
        return record_of(self.directory) is not None

    def prepare(self) -> None:
        """Write the resolved config; whoever trains this run reads it from there.

        `force` takes effect here and now: what earlier attempts left is deleted, once.

        Raises Busy when another process trains the run.
        """
        with self.owning():
            self.delete(*OWN_FILES if self.config.force else ("failed.json",))
            self.config.force = False
            self.freeze()

    def freeze(self) -> None:
        """Write the resolved config."""
        frozen = OmegaConf.to_yaml(OmegaConf.create(plain(self.config)))
        self.write("config.yaml", frozen.encode())

    def once(self, train: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
        """Train unless done, and publish the record; return it.

        `train` answers with the body of the record. Whatever ends it early is written to
        `failed.json` and raised again, a signal as `Stopped`; finished runs are never touched
        without `force`. Of several processes that train together, the first one speaks.

        Raises Busy when another process trains the run, LostOwnership when one took it over.
        """
        if self.finished():
            return self._done()
        try:
            with wish.listening():
                if rank(self.config.trainer):
                    return train(self)
                with self.owning():  # somebody may have finished it before
                    return self._done() if self.finished() else self._train(train)
        except Stopped as stopped:
            if rank(self.config.trainer):
                return {}
            leave(stopped)
            raise

    def _done(self) -> dict[str, Any]:
        print(f"done already: {self.directory}  (force=true trains it again)")
        return record_of(self.directory) or {}

    def _train(self, train: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
        """Train in the directory that this process owns."""
        begun: dict[str, Any] = {}
        try:
            self.prepare()
            begun = self.head()
            record = begun | train(self) | {"files": file_facts(self.directory)}
            record |= {"status": "done", "ended": now(), "error": None}
            self.write("record.json", json_text(record).encode())
        except BaseException as error:
            self.publish_failure(begun or self.head(), error)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise UserError(
                    f"{self.directory} cannot be written ({error.strerror}); make room, then "
                    "give the same command: the run goes on"
                ) from error
            raise
        self.delete("failed.json", CHECKPOINT)
        return record

    def head(self) -> dict[str, Any]:
        """Return what of a record is known before anything is computed."""
        config = self.config
        groups = ("model", "peft", "data", "hparams", "metrics", "trainer")
        return {
            "schema": SCHEMA,
            "id": self.id,
            "name": self.name,
            "status": "failed",
            "started": now(),
            "config": plain(config),
            "choices": {group: getattr(config, group).name for group in groups},
            "git": git(),
            "versions": versions(),
        }

    def publish_failure(self, begun: dict[str, Any], error: BaseException) -> None:
        """Write why a run ended early; a full disk must not hide the error itself.

        Who was replaced meanwhile has nothing to say: raises LostOwnership, whatever the error.
        """
        stopped = isinstance(error, KeyboardInterrupt | SystemExit) or wish.asked is not None
        record = begun | {
            "status": "interrupted" if stopped else "failed",
            "ended": now(),
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": traceback.format_exc(),
            },
        }
        try:
            self.write("failed.json", json_text(record).encode())
        except OSError as second:
            print(f"{self.directory}: failed.json could not be written ({second})")
        outcome = "; the same command goes on" if stopped else f": {type(error).__name__}: {error}"
        print(f"{record['status']}: {self.directory}{outcome}", flush=True)


def rank(trainer: Trainer) -> int:
    """Return this process's place among those that train one run together.

    They are the tasks of a SLURM job, or the processes that Lightning starts on one machine.
    """
    if trainer.devices * trainer.nodes == 1:
        return 0
    return int(os.environ.get("SLURM_PROCID" if tasked(trainer) else "LOCAL_RANK", "0"))


def tasked(trainer: Trainer) -> bool:
    """Say whether SLURM started one task per device of a run."""
    world = trainer.devices * trainer.nodes
    return world > 1 and os.environ.get("SLURM_STEP_NUM_TASKS") == str(world)


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def git() -> dict[str, Any]:
    """Return commit and dirty flag of the checkout this package runs from, if it is one."""
    here = Path(__file__).resolve().parent.parent.parent

    def ask(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(here), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout

    try:
        if not (here / ".git").exists():
            return {"commit": None, "dirty": None}
        code = ("segsweep", "conf", "hydra_plugins")
        dirty = bool(ask("status", "--porcelain", "--", *code).strip())
        return {"commit": ask("rev-parse", "HEAD").strip(), "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    import platform

    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed

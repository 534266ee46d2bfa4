"""What a run will cost, from the records of runs like it: hours, peak memory, disk.

Similar are, in this order: the same model, method and data with all their options; the same words
of the three; the same model. Time is scaled by epochs and images; a method with other parameters
costs about the same, because most of a step is the forward pass through the frozen parts.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from segsweep.base.config import Config, plain
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import misfit, opened, sound
from segsweep.base.terminal import watched
from segsweep.run.identity import Run
from segsweep.run.logger.base import Logger
from segsweep.run.shapes import curve, record_of

MIB = 2**20
SOME = range(1, 10**15)
TELLING = {  # what a record must hold to tell what a run costs
    "started": str,
    "seconds": {"total": float},
    "memory": {"peak_rss_mib": float},
    "data": {"images": {"train": SOME}, "trained_on?": SOME},
    "config": {"hparams": {"epochs": SOME}, "trainer": dict},
}
MOST = 1000  # finished runs of a kind that are looked at: more say nothing new
BATCHES = 4  # of training, and of validation, in each of the two epochs of a probe
Record = Mapping[str, Any]
ALIKE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "like it": lambda c: [c[group] for group in ("model", "peft", "data")],
    "of the same words": lambda c: [c[group]["name"] for group in ("model", "peft", "data")],
    "of the model": lambda c: c["model"]["name"],
}
ALWAYS = ("accelerator", "devices", "precision", "limit_train", "limit_val")  # of the trainer


@dataclass(frozen=True)
class Cost:
    """What a run will cost; None is what nobody knows. `source` says from where it is known."""

    hours: float | None = None  # of all devices together
    memory: float | None = None  # bytes of RAM
    cuda: float | None = None  # bytes of GPU memory
    disk: float | None = None  # bytes at most: results, and the checkpoint while it trains
    source: str = "unknown; --probe measures it"


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run took."""

    seconds: float
    training: float  # of the seconds
    images: int  # learnt from in all epochs
    memory: float  # bytes, as below
    cuda: float | None
    disk: float

    def scaled(self, images: float) -> float:
        """Return the seconds that this run would have taken with so many images."""
        return self.seconds + self.training * (images / self.images - 1)


Evidence = Mapping[str, Sequence[FinishedRun]]
"""The last finished runs of each likeness."""


def likeness(config: Record) -> dict[str, str]:
    """Return of each kind of likeness the text that alike runs on such a machine have in common."""
    machine = [config["trainer"].get(key) for key in ALWAYS]
    said = {kind: [kind, machine, key(config)] for kind, key in ALIKE.items()}
    return {kind: json.dumps(parts, sort_keys=True) for kind, parts in said.items()}


def finished_runs(runs: Sequence[Path]) -> Evidence:
    """Read what finished runs took; damaged ones are named and teach nothing."""
    evidence: defaultdict[str, deque[FinishedRun]] = defaultdict(lambda: deque(maxlen=MOST))
    for run, record in sound(watched(runs, len(runs), "reading finished runs"), record_of):
        if record and not misfit(record, TELLING) and _whole(run, record):
            finished = _finished(run, record)
            for text in likeness(record["config"]).values():
                evidence[text].append(finished)
    return evidence


def _finished(run: Path, record: Record) -> FinishedRun:
    with os.scandir(run) as entries:
        sizes = {e.name: e.stat(follow_symlinks=False).st_size for e in entries if e.is_file()}
    cuda = record["memory"].get("peak_cuda_mib")
    return FinishedRun(
        seconds=record["seconds"]["total"],
        training=record["seconds"].get("train", 0.0),
        images=record["config"]["hparams"]["epochs"] * trained_on(record),
        memory=record["memory"]["peak_rss_mib"] * MIB,
        cuda=cuda * MIB if cuda else None,
        # a checkpoint holds the trained tensors and, at most, AdamW's two averages of each
        disk=sum(sizes.values()) + 3 * sizes.get("delta.safetensors", 0),
    )


def _whole(run: Path, record: Record) -> bool:
    """Say whether the seconds of a record are all that it took: the run was never resumed."""
    first = next(_curve(run), {"time": math.inf})
    try:
        begun = datetime.fromisoformat(record["started"]).timestamp()
    except (ValueError, OverflowError):
        return False
    return first["time"] > begun - 1


def _curve(run: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError, Damaged), opened(run / "metrics.jsonl") as file:
        yield from curve(file)


def estimate(config: Config, images: Callable[[], int | None], runs: Evidence) -> Cost:
    """Estimate from the runs most like this one.

    `images` counts those that it would learn from; where nobody knows, nor are hours known.
    """
    config_plain = plain(config)
    for kind, text in likeness(config_plain).items():
        if alike := runs.get(text):
            return _from(config_plain, images, alike, f"{len(alike)} run(s) {kind}")
    return Cost()


def _from(
    planned: Record, images: Callable[[], int | None], alike: Sequence[FinishedRun], source: str
) -> Cost:
    trainer, number = planned["trainer"], images()
    devices = trainer["devices"] * trainer.get("nodes", 1)
    work = None if number is None else planned["hparams"]["epochs"] * number
    cuda = [run.cuda for run in alike if run.cuda]
    return Cost(
        hours=median(run.scaled(work) for run in alike) / 3600 * devices
        if work is not None
        else None,
        memory=max(run.memory for run in alike),
        cuda=max(cuda) if cuda else None,
        disk=max(run.disk for run in alike),
        source=source,
    )


def trained_on(record: Record) -> int:
    """Return how many pictures a run learns from; earlier records tell only how many there are."""
    return record["data"].get("trained_on", record["data"]["images"]["train"])


def probe(config: Config) -> Cost:
    """Measure two very short epochs of a run on this machine, in a folder that is deleted.

    Raises UserError when the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="segsweep-probe") as folder:
        short = copy.deepcopy(config)
        short.io.results, short.io.log_every, short.io.progress = folder, 1, False
        short.logger = Logger("none")
        short.hparams.epochs, short.hparams.patience = 2, None
        limits = short.trainer
        limits.limit_train = min(limits.limit_train or BATCHES, BATCHES)
        limits.limit_val = min(limits.limit_val or BATCHES, BATCHES)
        limits.validate_every = 1
        run = Run(short)
        run.directory.mkdir(parents=True)
        run.prepare()
        command = [sys.executable, "-m", "segsweep", "work", str(run.directory)]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            last = (process.stderr or process.stdout).strip().splitlines()[-1:]
            raise UserError(f"the probe of {run.name} failed: {''.join(last)}")
        record = record_of(run.directory)
        assert record is not None
        disk = _finished(run.directory, record).disk
        return _extrapolated(config, record, disk, [*_curve(run.directory)])


def _extrapolated(config: Config, record: Record, disk: float, lines: list[dict[str, Any]]) -> Cost:
    """Turn a probe's times per batch into those of the whole run."""
    hparams, seconds = config.hparams, record["seconds"]
    steps = math.ceil(trained_on(record) / hparams.batch_size)
    batches = math.ceil(record["data"]["images"]["val"] / hparams.images_at_once)
    steps = min(steps, config.trainer.limit_train or steps)
    batches = min(batches, config.trainer.limit_val or batches)
    epoch = validation = 0.0
    if lines:  # something trains; a line of a training step carries the learning rate
        pairs = list(pairwise(lines[len(lines) // 2 :]))  # the first epoch warms up
        between = [b["time"] - a["time"] for a, b in pairs if "lr" in a and "lr" in b]
        epoch = steps * (median(between) if between else seconds["train"] / 2)
        validation = sum(b["time"] - a["time"] for a, b in pairs if "lr" not in b)
    more = batches / min(batches, BATCHES)  # than the probe validated
    validation *= more
    evaluation = max(more * seconds.get("evaluate", 0.0), validation)  # which may have served
    total = sum(seconds.get(phase, 0.0) for phase in ("start", "setup")) + evaluation
    validations = math.ceil(hparams.epochs / config.trainer.validate_every)
    total += hparams.epochs * epoch + validations * validation
    cuda, trainer = record["memory"].get("peak_cuda_mib"), config.trainer
    return Cost(
        hours=total / 3600 * trainer.devices * trainer.nodes,
        memory=record["memory"]["peak_rss_mib"] * MIB,
        cuda=cuda * MIB if cuda else None,
        disk=disk,
        source="a probe here",
    )

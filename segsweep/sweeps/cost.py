"""What a run will cost, from the records of runs like it: hours, peak memory, disk.

Similar are, in this order: the same model, method and data with all their options; the same words
of the three; the same model. Time is scaled by epochs and images; a method with other parameters
costs about the same, because most of a step is the forward pass through the frozen parts.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from segsweep.base.config import Config, plain
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import misfit, opened, sound
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
    """A finished run: its record and what its folder holds."""

    record: Record
    disk: float


def finished_runs(runs: Sequence[Path]) -> list[FinishedRun]:
    """Read the records of finished runs; damaged ones are named and teach nothing."""
    finished = []
    for run, record in sound(runs, record_of):
        if record and not misfit(record, TELLING) and _whole(run, record):
            sizes = {p.name: p.lstat().st_size for p in run.iterdir() if p.is_file()}
            # a checkpoint holds the trained tensors and, at most, AdamW's two averages of each
            finished.append(
                FinishedRun(record, sum(sizes.values()) + 3 * sizes.get("delta.safetensors", 0))
            )
    return finished


def _whole(run: Path, record: Record) -> bool:
    """Say whether the seconds of a record are all that it took: the run was never resumed."""
    first = next(iter(_curve(run)), {"time": math.inf})
    try:
        begun = datetime.fromisoformat(record["started"]).timestamp()
    except (ValueError, OverflowError):
        return False
    return first["time"] > begun - 1


def _curve(run: Path) -> list[dict[str, Any]]:
    try:
        with opened(run / "metrics.jsonl") as file:
            return [*curve(file)]
    except (FileNotFoundError, Damaged):
        return []


def estimate(config: Config, images: Callable[[], int | None], runs: Sequence[FinishedRun]) -> Cost:
    """Estimate from the runs most like this one.

    `images` counts those that it would learn from; where nobody knows, nor are hours known.
    """
    config_plain = plain(config)
    comparable = [run for run in runs if _comparable(config_plain, run.record["config"])]
    for description, key in ALIKE.items():
        alike = [run for run in comparable if key(run.record["config"]) == key(config_plain)]
        if alike:
            return _from(config_plain, images, alike, f"{len(alike)} run(s) {description}")
    return Cost()


def _comparable(planned: Record, config: Record) -> bool:
    """Say whether a record was measured on such a machine."""
    return all(planned["trainer"].get(k) == config["trainer"].get(k) for k in ALWAYS)


def _from(
    planned: Record, images: Callable[[], int | None], alike: list[FinishedRun], source: str
) -> Cost:
    trainer = planned["trainer"]
    devices = trainer["devices"] * trainer.get("nodes", 1)
    number = images()
    work = None if number is None else planned["hparams"]["epochs"] * number
    seconds = [] if work is None else [_seconds(run.record, work) for run in alike]
    cuda = [m for run in alike if (m := run.record["memory"].get("peak_cuda_mib"))]
    return Cost(
        hours=median(seconds) / 3600 * devices if seconds else None,
        memory=max(run.record["memory"]["peak_rss_mib"] for run in alike) * MIB,
        cuda=max(cuda) * MIB if cuda else None,
        disk=max(run.disk for run in alike),
        source=source,
    )


def _seconds(record: Record, work: float) -> float:
    """Return the seconds that `work` images would have taken in this run."""
    seconds, config = record["seconds"], record["config"]
    images = config["hparams"]["epochs"] * trained_on(record)
    return seconds["total"] + seconds.get("train", 0.0) * (work / images - 1)


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
        (measured,) = finished_runs([run.directory])
        return _extrapolated(config, measured, _curve(run.directory))


def _extrapolated(config: Config, measured: FinishedRun, lines: list[dict[str, Any]]) -> Cost:
    """Turn a probe's times per batch into those of the whole run."""
    record, hparams = measured.record, config.hparams
    seconds = record["seconds"]
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
        disk=measured.disk,
        source="a probe here",
    )

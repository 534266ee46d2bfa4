"""A training step as a run takes it: seconds, and memory at its peak.

Module, trainer, forwards, precision, optimizer and moving average are those of `run/`, the method
is not merged. Each setting has a process of its own, so that nothing else counts in its memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from segsweep.base.config import Config
from segsweep.base.errors import UserError
from segsweep.base.remarks import plainly
from segsweep.bench.clock import spread
from segsweep.bench.settings import Plan
from segsweep.data.base import BACKGROUND, Annotation, Record
from segsweep.data.geometry import Geometry
from segsweep.data.loader import Batch, collate
from segsweep.data.transforms import Sample, sample
from segsweep.run.ema import MovingAverage
from segsweep.run.fit import machine, quiet
from segsweep.run.machine import machine_facts, require, reset_peaks
from segsweep.run.module import Module, parameter_groups
from segsweep.run.restore import assemble
from segsweep.task.base import kind

OBJECTS = 7  # of an image, as COCO has on average: 860,001 on 117,266
CURE = "take a smaller --size, hparams.micro_batch=1 or a larger machine"


class Clock(pl.Callback):
    """Milliseconds of every step, wall time and that of all threads, and MiB at its peak."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.peaks: list[dict[str, float | None]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin with what is held between two steps."""
        _synchronize(pl_module.device)
        reset_peaks()
        self.began = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note what the step took."""
        _synchronize(pl_module.device)
        now = time.perf_counter(), time.process_time()
        for times, begin, end in zip((self.ms, self.cpu_ms), self.began, now, strict=True):
            times.append(1e3 * (end - begin))
        self.peaks.append(machine_facts()["memory"])


def measured(config: Config, plan: Plan) -> dict[str, Any]:
    """Return what `steps` does, from a process of its own. Raises UserError as `steps`."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(_apart, config, plan, torch.get_num_threads()).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"bench --train: peft={config.peft.name}: the system ended the process that "
                f"trained it, as a rule for want of memory; {CURE}"
            ) from error


def _apart(config: Config, plan: Plan, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    return steps(config, plan)


def steps(config: Config, plan: Plan) -> dict[str, Any]:
    """Train for a few steps on the same images; return what the first and the later ones take.

    The first makes the state of the optimizer. A peak is all that the process holds, on a GPU all
    that its allocator has given.

    Raises:
        UserError: nothing trains, there is no GPU where one must be, images of this size are not
            taken, or memory does not suffice.
    """
    require(config.trainer)
    model, _, counts = assemble(config, list(plan.subject.texts), plan.subject)
    if not counts.trainable:
        raise UserError(f"bench --train: peft={config.peft.name} has nothing to train")
    hparams, clock = config.hparams, Clock()
    groups = parameter_groups(model, hparams, config.model.roles)
    module = Module(config, model.train(), groups, plan.rounds + 1)
    average = [MovingAverage(model, hparams.ema)] if hparams.ema else []
    with plainly(), quiet(), sized(plan):
        trainer = pl.Trainer(max_epochs=1, callbacks=[*average, clock], **machine(config))
        trainer.fit(module, _repeated(_batch(config, plan), plan))
    (first_ms, *ms), (first, *later) = clock.ms, [_peak(peaks) for peaks in clock.peaks]
    number = _number_of_steps(config, plan)
    return {
        "first_ms": first_ms,
        "median_ms": median(ms),
        "iqr_ms": spread(ms),
        "cpu_ms": median(clock.cpu_ms[1:]),
        "rounds": len(ms),
        "first_peak_mib": first,
        "peak_mib": max(later),
        "memory": "process" if clock.peaks[0]["peak_cuda_mib"] is None else "GPU",
        "images_per_s": 1e3 * hparams.batch_size / median(ms),
        "steps": number,
        "total_s": None if number is None else number * median(ms) / 1e3,
        "all_ms": ms,
    }


def conditions(config: Config, plan: Plan) -> dict[str, Any]:
    """Return what the numbers of `steps` depend on beside model, method and size of images."""
    hparams = config.hparams
    return {
        "batch": hparams.batch_size,
        "at_once": min(hparams.images_at_once, hparams.batch_size),
        "optimizer": hparams.optimizer.name,
        "objects": OBJECTS,
        "images": plan.images,
        "epochs": hparams.epochs,
    }


@contextlib.contextmanager
def sized(plan: Plan) -> Iterator[None]:
    """Turn what a model says of images that it does not take, or cannot hold, into a UserError."""
    try:
        yield
    except (RuntimeError, UserError) as error:
        reason = str(error).partition("\n")[0]
        size = "--size {} {}".format(*plan.size)
        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(f"{size}: {reason}; {CURE}") from error
        raise UserError(f"{size}: the model takes no such images ({reason})") from error


def _number_of_steps(config: Config, plan: Plan) -> int | None:
    """Count the steps of all epochs: the last incomplete batch of an epoch is dropped."""
    if plan.images is None:
        return None
    per_epoch = max(plan.images // config.hparams.batch_size, 1)
    return config.hparams.epochs * min(per_epoch, config.trainer.limit_train or per_epoch)


def _peak(memory: dict[str, float | None]) -> float:
    return memory["peak_cuda_mib"] or memory["peak_rss_mib"] or 0.0


def _repeated(batch: Batch, plan: Plan) -> Iterator[Batch]:
    """Yield a batch for the first step and `rounds` more, or those that begin within `seconds`."""
    yield batch
    end = time.monotonic() + plan.seconds
    for number in range(plan.rounds):
        if number >= 2 and time.monotonic() > end:
            return
        yield batch


def _batch(config: Config, plan: Plan) -> Batch:
    """Noise with rectangles on it, as the loader would hand them over."""
    draws = np.random.default_rng(0)
    samples = [_sample(config, plan, draws) for _ in range(config.hparams.batch_size)]
    return collate(samples, config.data)


def _sample(config: Config, plan: Plan, draws: np.random.Generator) -> Sample:
    """One image of `plan.size` with OBJECTS rectangles: instances, or painted into a label map."""
    height, width = plan.size
    pixels = draws.integers(0, 256, (height, width, 3), np.uint8)
    record = Record(0, "", height, width, [_annotation(plan, draws) for _ in range(OBJECTS)])
    label_map = None
    if kind(plan.subject.task).dense:
        ground = BACKGROUND if plan.subject.background else 0
        label_map = np.full(plan.size, ground, np.uint8)
        for one in record.annotations:
            x, y, w, h = map(int, one.bbox)
            label_map[y : y + h, x : x + w] = one.category
    return sample(pixels, record, Geometry(plan.size, plan.size), label_map, config.data.boxes)


def _annotation(plan: Plan, draws: np.random.Generator) -> Annotation:
    """Return a rectangle of an eighth to a half of each side, of any class."""
    height, width = plan.size
    w, h = (int(draws.integers(side // 8, side // 2)) for side in (width, height))
    x, y = int(draws.integers(width - w)), int(draws.integers(height - h))
    box = Annotation(int(draws.integers(len(plan.subject.texts))), None, [x, y, w, h], w * h)
    return replace(box, segmentation=box.shape)


def _synchronize(device: torch.device) -> None:
    """Wait for a GPU, so that what it is still about counts."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

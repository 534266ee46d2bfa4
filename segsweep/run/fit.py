"""The training loop of one run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from segsweep.base.config import Config
from segsweep.base.errors import UserError
from segsweep.data.loader import Batch, EvalLoader, TrainLoader
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import unreadable
from segsweep.peft.delta import load_state
from segsweep.run.callbacks import NEVER, Best, Checkpoint, Curve, Progress, Stop
from segsweep.run.ema import MovingAverage
from segsweep.run.evaluate import Evaluation, evaluated, validation
from segsweep.run.folder import CHECKPOINT
from segsweep.run.identity import Run, rank, tasked
from segsweep.run.machine import loading_processes
from segsweep.run.module import Module
from segsweep.run.pack import in_turn
from segsweep.run.predictions import keeping


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out Lightning's remarks and advertisements; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True)
class Fitted:
    """What training led to, beside the weights."""

    best: dict[str, Any]  # epoch, step and value of the best validation
    kinds: list[str]  # of devices that trained it
    evaluation: Evaluation | None  # that of the best weights, if they have been evaluated already


def fit(run: Run, model: Segmenter, groups: list[dict[str, Any]]) -> Fitted:
    """Train; the model is left with the best weights by the metric on `data.select`.

    Goes on from `last.ckpt` where there is one, with the same results as without the
    interruption. The last validation is the evaluation of the run where it was the best one, and
    on the images that the evaluation is on: the same weights find the same again.
    """
    config = run.config
    loader = train_loader(config)
    per_epoch = min(len(loader), config.trainer.limit_train or len(loader))
    total = per_epoch * config.hparams.epochs
    module = Module(config, model.train(), groups, total)  # frozen parts stay in evaluation mode
    curve = Curve(run, per_epoch)
    best = Best(config, curve)
    checkpoint = Checkpoint(run, per_epoch, config.io.save_every)
    progress = Progress(config, per_epoch, best)
    judges = rank(config.trainer) == 0 and config.data.chosen_on == "val"
    average = [MovingAverage(model, config.hparams.ema)] if config.hparams.ema else []
    with quiet(), keeping(run) if judges else contextlib.nullcontext() as module.keep:
        trainer = pl.Trainer(
            max_steps=total,
            check_val_every_n_epoch=NEVER,
            limit_val_batches=config.trainer.limit_val,
            callbacks=[curve, best, *average, checkpoint, Stop(checkpoint), progress],
            **machine(config),
        )
        batches = Epochs(module, loader, per_epoch)
        last = resumable(run.directory / CHECKPOINT)
        chosen_on = Validation(module, validation(config, config.data.chosen_on))
        trainer.fit(module, batches, chosen_on, ckpt_path=last)
    if best.exhausted and trainer.is_global_zero and module.global_step < total:
        times = f"{best.waited} validation{'s' * (best.waited > 1)}"
        print(f"  stopped early: no better {best.metric.key} in {times} (hparams.patience)")
    assert best.record is not None  # the last epoch is always validated
    load_state(model, best.weights)
    judged = judges and best.values and best.record["step"] == total
    evaluation = evaluated(run, module.evaluator) if judged else None
    return Fitted(best.record, module.trained_on(), evaluation)


def resumable(last: Path) -> str | None:
    """Return the checkpoint to go on from, None if there is none.

    Raises UserError when it cannot be read.
    """
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # what reading arbitrary bytes raises is not listed anywhere
        raise UserError(f"{last}: {unreadable(error)}; delete it to begin the run again") from error
    return str(last)


def machine(config: Config) -> dict[str, Any]:
    """Return the Trainer's arguments that say on what it computes."""
    trainer = config.trainer
    world = trainer.devices * trainer.nodes
    # signals and requeues are not Lightning's business
    ranks = SLURMEnvironment(auto_requeue=False) if tasked(trainer) else LightningEnvironment()
    return {
        "accelerator": trainer.accelerator.value,
        "devices": trainer.devices,
        "num_nodes": trainer.nodes,
        "precision": trainer.precision.value,
        "gradient_clip_val": config.hparams.clip or None,
        "strategy": "ddp_find_unused_parameters_true" if world > 1 else "auto",
        "plugins": [ranks],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }


class Epochs:
    """The batches of one epoch from the current step on: Lightning may stop and resume anywhere.

    It has no length on purpose: an epoch ends where the data end, not where a counter says so.
    """

    def __init__(self, module: Module, loader: TrainLoader, per_epoch: int) -> None:
        self.module, self.loader, self.per_epoch = module, loader, per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the epoch that the next optimizer step belongs to."""
        self.loader.share(self.module.global_rank, self.module.trainer.world_size)
        step = self.module.global_step
        span = range(step, step + self.per_epoch - step % self.per_epoch)
        yield from in_turn("train", span, None, lambda i: self.loader.batches(i, span.stop - i))


class Validation:
    """The batches of a validation, in a pack in turn with its other runs."""

    def __init__(self, module: Module, loader: EvalLoader) -> None:
        self.module, self.loader = module, loader

    def __len__(self) -> int:
        """Batches of the split."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Yield all batches."""
        yield from in_turn(
            "validation", range(len(self)), self.module.global_step, self.loader.batches
        )


def train_loader(config: Config) -> TrainLoader:
    """Return the loader of training batches, a pure function of (seed, step)."""
    hparams, workers = config.hparams, loading_processes(config)
    devices = config.trainer.devices * config.trainer.nodes
    together = hparams.micro_batch * devices if hparams.micro_batch else 1
    return TrainLoader(config.data, hparams.batch_size, config.seed, workers, together)

"""The training loop of one run, and its evaluation."""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from segsweep.base.config import Config, Trainer
from segsweep.base.errors import UserError
from segsweep.base.terminal import watched
from segsweep.data.loader import Batch, TrainLoader, eval_loader
from segsweep.metrics.base import Evaluator
from segsweep.model.segmenter import Segmenter
from segsweep.run.callbacks import Best, Checkpoint, Curve, Progress, Stop
from segsweep.run.identity import Run, tasked
from segsweep.run.module import Module
from segsweep.run.predictions import keeping
from segsweep.task.base import task_of

TALK = (  # of Lightning, about what is deliberate here
    r".*does not have many workers.*",
    r".*`IterableDataset`.*",
    r".*before the epoch ended.*",
    r".*LeafSpec.*",
    r".*in eval mode at the start.*",
    r".*`srun` command is available.*",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out Lightning's remarks and advertisements; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in TALK:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fit(run: Run, model: Segmenter, base: str) -> dict[str, Any]:
    """Train, keep the best weights by the validation metric in `delta.safetensors`.

    Goes on from `last.ckpt` where there is one, with the same results as without the
    interruption. Returns epoch, step and value of the best validation.
    """
    config = run.config
    loader = train_loader(config)
    per_epoch = min(len(loader), config.trainer.limit_train or len(loader))
    total = per_epoch * config.hparams.epochs
    module = Module(config, model.train(), total)  # frozen parts stay in evaluation mode
    curve = Curve(run, per_epoch)
    best = Best(run, curve, base)
    last = run.directory / "last.ckpt"
    checkpoint = Checkpoint(last, per_epoch, config.io.save_every)
    with quiet():
        trainer = pl.Trainer(
            max_steps=total,
            check_val_every_n_epoch=config.trainer.validate_every,
            limit_val_batches=config.trainer.limit_val,
            callbacks=[
                curve,
                best,
                checkpoint,
                Stop(checkpoint),
                Progress(config, per_epoch, best),
            ],
            **machine(config),
        )
        trainer.fit(
            module,
            Epochs(module, loader, per_epoch),
            validation(config),
            ckpt_path=resumable(last),
        )
    if best.found is None:  # fewer epochs than validate_every: the last weights are the best
        best.keep(module, epoch=config.hparams.epochs, step=total, value=None)
    return best.found or {}


def resumable(last: Path) -> str | None:
    """Return the checkpoint to go on from, None if there is none.

    Raises UserError when it cannot be read.
    """
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # what reading arbitrary bytes raises is not listed anywhere
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{last} is damaged ({reason}); delete it to begin the run again"
        ) from error
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

    def __iter__(self):
        """Yield what is left of the epoch that the next optimizer step belongs to."""
        step = self.module.global_step
        self.loader.share(self.module.global_rank, self.module.trainer.world_size)
        yield from self.loader.batches(step, self.per_epoch - step % self.per_epoch)


def train_loader(config: Config) -> TrainLoader:
    """Return the loader of training batches, a pure function of (seed, step)."""
    return TrainLoader(
        config.data, config.hparams.batch_size, seed=config.seed, workers=config.io.workers
    )


def validation(config: Config) -> Any:
    """Return the validation batches."""
    return eval_loader(config.data, "val", config.hparams.batch_size, config.io.workers)


def evaluate(run: Run, model: Segmenter, what: str = "") -> Evaluator:
    """Evaluate the model on the validation split, in the precision that it trained in.

    Progress is shown under the name `what`, if there is one. Returns the evaluator, which has seen
    all images.
    """
    config = run.config
    evaluator = config.metrics.evaluator(config.data, "val")
    loader, limit = validation(config), config.trainer.limit_val
    batches = itertools.islice(loader, limit)
    if what:
        batches = watched(batches, min(len(loader), limit or len(loader)), what)
    with keeping(run) as keep:
        for batch, found in predictions(config, model, batches):
            evaluator.update(batch, found)
            keep(batch.image_ids, found)
    return evaluator


def predictions(
    config: Config, model: Segmenter, batches: Iterable[Batch], least: float = 0.0
) -> Iterator[tuple[Batch, list[Any]]]:
    """Yield each batch with what the model finds on it, in the precision that it trained in.

    Nothing need be found below the score `least`, but the best.
    """
    device, cast = arithmetic(config.trainer)
    task = task_of(config.data, least)
    model.to(device).eval()
    for batch in batches:
        with cast:
            found = task.find(model, batch.to(device))
        yield batch, found


def arithmetic(trainer: Trainer) -> tuple[torch.device, torch.autocast]:
    """Return where a trained model computes, and the context of its precision."""
    gpu = torch.cuda.is_available() and trainer.accelerator.name != "cpu"
    device = torch.device("cuda" if gpu else "cpu")
    precision = trainer.precision.name
    half = torch.float16 if precision == "fp16" and gpu else torch.bfloat16
    return device, torch.autocast(device.type, half, enabled=precision != "fp32")

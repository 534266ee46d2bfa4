"""The evaluation of a model on the validation split, and what it finds batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from segsweep.base.config import Config
from segsweep.base.terminal import watched
from segsweep.data.loader import Batch, EvalLoader
from segsweep.metrics.base import of_classes
from segsweep.model.segmenter import Segmenter
from segsweep.run.identity import Run
from segsweep.run.machine import arithmetic, loading_processes
from segsweep.run.predictions import FILE, PredictionFile, keeping, read
from segsweep.task.base import task_of


def validation(config: Config, split: str = "val") -> EvalLoader:
    """Return the validation batches, or those of another split."""
    return EvalLoader(config.data, split, config.hparams.batch_size, loading_processes(config))


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on the validation split: all values, those of classes, predictions."""

    values: dict[str, float | None]
    classes: list[dict[str, Any]]
    predictions: PredictionFile | None  # None where none are kept


def evaluate(run: Run, model: Segmenter, title: str = "") -> Evaluation:
    """Evaluate the model on the validation split, in the precision that it trained in.

    Progress is shown under the name `title`, if there is one.
    """
    config = run.config
    evaluator = config.metrics.evaluator(config.data, "val")
    loader, limit = validation(config), config.trainer.limit_val
    batches = itertools.islice(loader, limit)
    if title:
        batches = watched(batches, min(len(loader), limit or len(loader)), title)
    with keeping(run) as keep:
        for batch, results in predict_batches(config, model, batches):
            evaluator.update(batch, results)
            keep(batch.image_ids, results)
    path = run.directory / FILE
    file = read(path) if path.exists() else None
    return Evaluation(evaluator.compute(), of_classes(evaluator), file)


def predict_batches(
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
            results = task.find(model, batch.to(device))
        yield batch, results

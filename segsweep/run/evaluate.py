"""The evaluation of a model on a split, and what it finds there or on pictures of anybody."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from segsweep.base.config import Config
from segsweep.base.terminal import watched
from segsweep.data.folder import Folder, Shot
from segsweep.data.loader import Batch, EvalLoader
from segsweep.metrics.base import Evaluator, of_classes
from segsweep.model.segmenter import Segmenter
from segsweep.run.identity import Run
from segsweep.run.machine import arithmetic, loading_processes
from segsweep.run.pack import END, in_turn
from segsweep.run.predictions import FILE, Keep, PredictionFile, keeping, read


def validation(config: Config, split: str = "val") -> EvalLoader:
    """Return the validation batches, or those of another split."""
    return EvalLoader(config.data, split, config.hparams.images_at_once, loading_processes(config))


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
    with keeping(run) as keep:
        evaluator = judged(run.config, model, "val", title, run.config.trainer.limit_val, keep)
    return evaluated(run, evaluator)


def evaluated(run: Run, evaluator: Evaluator) -> Evaluation:
    """Return the evaluation by what has seen the validation split, its predictions being kept."""
    path = run.directory / FILE
    file = read(path) if path.exists() else None
    return Evaluation(evaluator.compute(), of_classes(evaluator), file)


def judged(
    config: Config,
    model: Segmenter,
    split: str,
    title: str = "",
    limit: int | None = None,
    keep: Keep | None = None,
) -> Evaluator:
    """Return the evaluator that has seen what the model finds on a split.

    That is on its first `limit` batches, if that is given. `keep` takes in ids and what is kept.
    """
    evaluator, loader = config.metrics.evaluator(config.data, split), validation(config, split)
    count = min(len(loader), limit or len(loader))
    batches = itertools.islice(in_turn(split, range(count), END, loader.batches), count)
    if title:
        batches = watched(batches, count, f"{title}, batches")
    framed = map(config.metrics.framed, batches)
    for batch, results in predict_batches(config, model, framed):
        take(evaluator, batch, results, keep)
    return evaluator


def take(evaluator: Evaluator, batch: Batch, results: list[Any], keep: Keep | None = None) -> None:
    """Let an evaluator see what was found on a batch, and keep that as the evaluator says it."""
    seen = evaluator.update(batch, results)
    if keep:
        keep(batch.image_ids, seen or [found.coco for found in results])


def predict_shots(
    config: Config, model: Segmenter, folder: Folder, least: float, title: str = ""
) -> Iterator[tuple[Shot, Any]]:
    """Yield each picture of anybody with what the model finds on it, as `predict_batches` does."""
    batches = watched(folder, len(folder), f"{title}, batches") if title else folder
    for batch, results in predict_batches(config, model, batches, least):
        for image_id, result in zip(batch.image_ids, results, strict=True):
            yield folder.shots[image_id], result


def predict_batches(
    config: Config, model: Segmenter, batches: Iterable[Batch], least: float = 0.0
) -> Iterator[tuple[Batch, list[Any]]]:
    """Yield each batch with what the model finds on it, in the precision that it trained in.

    Nothing need be found below the score `least`, but the best.
    """
    device, cast = arithmetic(config.trainer)
    model.to(device).eval()
    for batch in batches:
        with torch.no_grad(), cast:
            results = model.find(batch.to(device), least)
        yield batch, results

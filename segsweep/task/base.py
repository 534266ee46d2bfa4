"""What a task is: what is learnt of a picture, and what is read off a model's raw outputs.

A task is one file: its name is the word that data sets declare (`DataSet.task`), its `TASK` the
class. General code asks that class, not the word, what the task can do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from segsweep.loss.outputs import Output

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.data.loader import Batch
    from segsweep.model.segmenter import Segmenter

Size = tuple[int, int]  # (height, width)
View = tuple[Size, Size, Size]  # an image as the network saw it, with padding, at original size


@dataclass
class Task(ABC):
    """Reads what is found off the outputs of a model.

    `least` is a score below which nothing need be found, but for the best.
    """

    least: float = 0.0

    finds: ClassVar[str]  # in words
    kept: ClassVar[bool] = False  # what is found stands in the file of predictions of a run
    dense: ClassVar[bool] = False  # every pixel gets a class, or none where sets have background

    @abstractmethod
    def read(self, model: Segmenter, output: Output, b: int, view: View) -> Any:
        """Return what is found on image b, at its original size."""

    @torch.no_grad()
    def predict(
        self,
        model: Segmenter,
        output: Output,
        sizes: Sequence[Size],
        padded_size: Size,
        original_sizes: Sequence[Size],
    ) -> list[Any]:
        """Return what is found on each image, at its original size.

        `sizes` are the images as the network saw them, without the padding to `padded_size`.
        """
        frames = zip(sizes, original_sizes, strict=True)
        with torch.autocast(output.mask_features.device.type, enabled=False):
            return [
                self.read(model, output, b, (size, padded_size, original))
                for b, (size, original) in enumerate(frames)
            ]

    @torch.no_grad()
    def find(self, model: Segmenter, batch: Batch) -> list[Any]:
        """Return what a model finds on each image of a batch, at its original size."""
        output = model(batch.images)
        padded = (batch.images.shape[-2], batch.images.shape[-1])
        return self.predict(model, output, batch.sizes, padded, batch.original_sizes)


def task_of(data: DataSet, least: float = 0.0) -> Task:
    """Return the task that a data set declares."""
    return kind(data.task)(least)


def kind(word: str) -> type[Task]:
    """Return the class of a task."""
    return import_module(f"segsweep.task.{word}").TASK

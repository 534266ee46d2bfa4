"""Heads of object queries: a pixel decoder, a predictor, and what is read off their queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segsweep.loss.outputs import Output
from segsweep.model.heads.base import Head

if TYPE_CHECKING:
    from segsweep.data.base import Subject
    from segsweep.data.geometry import View
    from segsweep.data.loader import Target
    from segsweep.loss.classes import ClassLoss
    from segsweep.model.heads.frames import Resize

FAR = 1e9  # between queries, where one is no number


@dataclass
class Reader(ABC):
    """Reads what is found off the queries; one file per task, `query_<task>.py`.

    `topk` (query, class) pairs per image are read; `focus_on_box` leaves the quality of the mask
    out of the score; `resize` is how mask logits reach the original size, bicubic with antialias.
    """

    subject: Subject
    classify: ClassLoss
    topk: int = 100
    focus_on_box: bool = False
    resize: Resize = "bilinear"
    encoded: bool = True  # masks, as run lengths

    @abstractmethod
    def read(self, output: Output, b: int, view: View, least: float) -> Any:
        """Return what is found on image b at its original size; see `Head.predict`."""


def reader(subject: Subject, *args: Any, **options: Any) -> Reader:
    """Return the reader of a subject's task; the other arguments are those of `Reader`."""
    file = import_module(f"segsweep.model.heads.query_{subject.task}")
    return file.READER(subject, *args, **options)


class QueryHead(Head):
    """A `pixel_decoder` turns maps into PixelFeatures, a `predictor` these into an Output.

    One that is told its classes by texts has `fix_texts()`, which makes constants of their
    embeddings. Without a `reader` it can be trained, but finds nothing.
    """

    def __init__(
        self, pixel_decoder: nn.Module, predictor: nn.Module, reader: Reader | None = None
    ) -> None:
        super().__init__()
        self.pixel_decoder, self.predictor, self.reader = pixel_decoder, predictor, reader

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        scores = self.reader.classify.meaning if self.reader else "not said"
        return {
            "logits": f"of each query and class; scores are their {scores}",
            "boxes": "of each query: centre x, centre y, width, height in parts of the input",
            "masks": "logits of each query's mask, at a quarter of the input's size",
        }

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Output:
        """Maps (B, C_i, H_i, W_i) at strides 4 to 32 -> Output; targets add denoising"""
        return self.predictor(self.pixel_decoder(features), targets)

    def predict(self, output: Output, views: Sequence[View], least: float = 0.0) -> list[Any]:
        """Return what the reader finds on each image."""
        assert self.reader is not None
        return [self.reader.read(output, b, view, least) for b, view in enumerate(views)]

    def tensors(self, output: Output) -> dict[str, Tensor]:
        """Return the last prediction set.

        `logits` (B, Q, K), or K + 1 where the last one says that there is no object; `boxes`
        (B, Q, 4) cx cy w h in [0, 1], where the model predicts boxes; `masks` (B, Q, H/4, W/4)
        logits.
        """
        result = output.matching
        named = {"logits": result.logits[-1]}
        if result.boxes is not None:
            named["boxes"] = result.boxes[-1]
        masks = torch.einsum("bqc,bchw->bqhw", result.embeddings[-1], output.mask_features)
        return named | {"masks": masks}

    def aligned(self, output: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the queries of each image in the order of those that they are to equal.

        Queries are a set: Mask DINO ranks them by score, and a rounding exchanges neighbours of
        nearly equal score. Which belong together follows from logits and boxes, each used once.
        """
        from scipy.optimize import linear_sum_assignment

        queries, targets = (
            torch.cat([tensors[name] for name in ("logits", "boxes") if name in tensors], dim=2)
            for tensors in (output, wanted)
        )
        costs = torch.cdist(targets, queries, p=1).nan_to_num(nan=FAR, posinf=FAR)  # (B, Q, Q)
        order = torch.stack([torch.as_tensor(linear_sum_assignment(cost)[1]) for cost in costs])
        images = torch.arange(len(order))[:, None]
        return {name: tensor[images, order] for name, tensor in output.items()}

    def only_pixels(self) -> None:
        """Leave out the run lengths of masks."""
        if self.reader is not None:
            self.reader.encoded = False

    def fix_texts(self) -> None:
        """Leave out what only serves to encode the texts of the classes, for good."""
        getattr(self.predictor, "fix_texts", lambda: None)()

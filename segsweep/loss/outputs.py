"""What heads hand to losses and tasks: sets of predictions, and the queries that noise made.

Letters of shapes: B images, Q queries, C channels, K classes, S prediction sets, P denoising slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Labelled(Protocol):
    """What denoising reads of a target: labels (n,) and boxes (n, 4) cxcywh in [0, 1]."""

    labels: Tensor
    boxes: Tensor


@dataclass
class DenoisingQueries:
    """Queries made of noised targets; they stand before the matching queries.

    Slot `g * max_n + j` of an image holds its target j in group g. Slots without a target keep
    zero content and the anchor 0 (the box (.5, .5, .5, .5)) and are background to the class loss.
    """

    content: Tensor  # (B, P, C)
    anchors: Tensor  # (B, P, 4) unsigmoided boxes
    attention_mask: Tensor  # (P + Q, P + Q) bool, True where the row must not see the column
    groups: int
    slots: list[Tensor]  # of each image: slots of its targets, (groups * n,), group by group
    pad: int  # P = groups * max_n


@dataclass
class PredictionSets:
    """Prediction sets, masks in factors: mask logits = embeddings . mask_features."""

    logits: Tensor  # (S, B, Q, K), or K + 1 where the last one says that there is no object
    boxes: Tensor | None  # (S, B, Q, 4); None where only masks are predicted
    embeddings: Tensor  # (S, B, Q, C)

    def split(self, queries: int) -> tuple[PredictionSets, PredictionSets]:
        """Part the first queries from the others."""
        return self.map(lambda x: x[:, :, :queries]), self.map(lambda x: x[:, :, queries:])

    def map(self, change: Callable[[Tensor], Tensor]) -> PredictionSets:
        """Change all three tensors in the same way."""
        boxes = None if self.boxes is None else change(self.boxes)
        return PredictionSets(change(self.logits), boxes, change(self.embeddings))


@dataclass
class Output:
    """All prediction sets of one forward pass, from the initial queries to the last layer."""

    matching: PredictionSets  # the last set is the result
    interm: PredictionSets | None  # the chosen tokens themselves, S = 1
    denoising: PredictionSets | None  # sets as in matching, Q = queries.pad
    queries: DenoisingQueries | None
    mask_features: Tensor  # (B, C, H/4, W/4)


class Masks(NamedTuple):
    """Raw outputs of a head whose masks are told classes, or that has one of one foreground."""

    logits: Tensor  # (B, M, h, w), bilinear to the input's size
    classes: Tensor | None  # (B, M, K + 1), "no object" last; None of one foreground


class PixelLogits(NamedTuple):
    """Raw outputs of a head that tells the class of every pixel."""

    logits: Tensor  # (B, K, h, w), bilinear to the input's size; the background is one of the K


class PictureLogits(NamedTuple):
    """Raw outputs of a head that tells the class of a picture."""

    logits: Tensor  # (B, K)

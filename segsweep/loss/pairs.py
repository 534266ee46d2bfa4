"""The targets of a batch in one row, and the queries that answer for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from segsweep.data.loader import Target


@dataclass
class Truth:
    """The T targets of a batch in one row; `counts` of them belong to each image."""

    labels: Tensor  # (T,)
    boxes: Tensor  # (T, 4) cxcywh in [0, 1]
    masks: Tensor  # (T, H, W) bool
    counts: list[int]

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Truth:
        """Join the targets of all images."""
        return cls(
            torch.cat([target.labels for target in targets]),
            torch.cat([target.boxes for target in targets]).float(),
            torch.cat([target.masks for target in targets]),
            [len(target.labels) for target in targets],
        )

    def matched(self, queries: int) -> int:
        """Count the pairs of a set with this many queries per image."""
        return sum(min(n, queries) for n in self.counts)


@dataclass
class Pairs:
    """Queries and the targets they answer for: M pairs in each of S sets, image after image.

    Targets are counted through the batch. With several groups, the pairs of an image are its
    targets in order, once for each group.
    """

    query: Tensor  # (S, M)
    target: Tensor  # (S, M)
    counts: list[int]  # pairs of each image
    groups: int = 1

    @cached_property
    def image(self) -> Tensor:
        """Index of the image of each pair. (M,)"""
        image = [b for b, count in enumerate(self.counts) for _ in range(count)]
        return torch.tensor(image, dtype=torch.long, device=self.query.device)

    def index(self, sets: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where the pairs' queries stand in predictions (S, B, Q, ...)."""
        rows = torch.arange(sets, device=self.query.device)
        return rows[:, None], self.image, self.query

    def pick(self, predictions: Tensor) -> Tensor:
        """Take the entry of every pair's query. (S, B, Q, ...) -> (S, M, ...)"""
        return predictions[self.index(len(predictions))]

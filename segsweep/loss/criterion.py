"""The loss of a batch: every prediction set is compared with the targets it is matched to.

Shared by the families: matching, the points at which masks are compared, mask losses, the weighted
total. A family says which sets there are, what their terms are called, and what it adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from segsweep.loss.base import BaseCriterion, over_ranks
from segsweep.loss.pairs import Truth
from segsweep.loss.points import PointLosses, draw_points, sample, uncertain_points

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.classes import ClassLoss
    from segsweep.loss.outputs import Output, PredictionSets
    from segsweep.loss.pairs import Pairs

Drawn = tuple[Tensor, Tensor]  # candidates and plain points of `uncertain_points`


class Criterion(BaseCriterion):
    """Raw loss terms of every prediction set, and their weighted total.

    `classify` is the class loss. `weights` name ce, mask and dice, and what else the family
    compares; the matcher's costs have the same. Masks are compared at `points` points. Everything
    is computed in float32. Official checkpoints hold weights of the classes: `saved` says whether
    ours do.
    """

    stems: ClassVar[Mapping[str, str]]  # of each kind of term: how its official names begin
    empty_weight: Tensor  # (K + 1,), "no object" last

    def __init__(
        self,
        classify: ClassLoss,
        num_classes: int,
        weights: Mapping[str, float],
        points: int,
        no_object: float = 0.1,
        saved: bool = True,
    ) -> None:
        super().__init__()
        self.classify, self.weights, self.points = classify, dict(weights), points
        weight = torch.tensor([1.0] * num_classes + [no_object])
        self.register_buffer("empty_weight", weight, persistent=saved)

    def forward(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the unweighted terms under their official names."""
        with torch.autocast(output.mask_features.device.type, enabled=False):
            return self._terms(output, targets)

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms of `forward` by their weights. -> ()"""
        weights = [
            self.weights[kind]
            for name in terms
            for kind, stem in self.stems.items()
            if name.startswith(stem)
        ]
        stacked = torch.stack(list(terms.values()))
        return (stacked * stacked.new_tensor(weights)).sum()  # a dot product would be autocast

    def matcher_points(self, images: int, device: torch.device) -> Tensor:
        """Draw the points at which the matcher compares the masks of one set. -> (B, P, 2)"""
        return torch.rand(images, self.points, 2, device=device)

    def candidates(self, masks: int, device: torch.device) -> Drawn:
        """Draw what `loss_points` chooses from, for the masks of one set."""
        return draw_points(masks, self.points, device)

    def loss_points(self, logits: Tensor, drawn: Drawn) -> Tensor:
        """Choose the points at which the masks of one set are compared. (M, h, w) -> (M, P, 2)"""
        return uncertain_points(logits, *drawn, self.points)

    def _terms(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Put the sets into the order of the official program and compare each; see `forward`."""
        raise NotImplementedError

    def _query_losses(
        self, sets: PredictionSets, pairs: Pairs, truth: Truth, norm: Tensor
    ) -> dict[str, Tensor]:
        """Losses that do not read masks. -> (S,) each"""
        return {"ce": self.classify.loss(sets.logits, pairs, truth, norm)}

    def _mask_losses(
        self,
        embeddings: Tensor,
        features: Tensor,
        pairs: Pairs,
        truth: Truth,
        drawn: Sequence[Drawn],
        norm: Tensor,
    ) -> dict[str, Tensor]:
        """Cross entropy and dice of the pairs' masks. (S, B, Q, C), (B, C, h, w) -> (S,) each"""
        logits = mask_logits(pairs.pick(embeddings), features, pairs.counts)
        sets = zip(logits.detach(), drawn, strict=True)
        points = torch.stack([self.loss_points(*drawn_of_set) for drawn_of_set in sets])
        labels = truth_at(points, pairs, truth.masks)
        rows = (x.flatten(0, 1) for x in (logits, points, labels))
        bce, dice = (loss.view(points.shape[:2]).sum(1) for loss in PointLosses.apply(*rows))
        return {"mask": bce / norm, "dice": dice / norm}

    def _named(self, losses: Mapping[str, Tensor], suffixes: Sequence[str]) -> dict[str, Tensor]:
        """Give every set's term its official name."""
        return {
            f"{self.stems[kind]}{suffix}": term
            for kind, terms in losses.items()
            for suffix, term in zip(suffixes, terms.unbind(), strict=True)
        }


def num_masks(truth: Truth) -> Tensor:
    """Count the targets, averaged over the ranks, at least 1. -> ()"""
    return over_ranks(sum(truth.counts), truth.labels.device).clamp(min=1)


def mask_logits(embeddings: Tensor, features: Tensor, counts: Sequence[int]) -> Tensor:
    """Make the masks of queries that stand image after image. -> (S, M, h, w)

    `embeddings` (S, M, C), `features` (B, C, h, w), `counts` of the M queries of each image.
    """
    images = zip(embeddings.split(counts, dim=1), features, strict=True)
    dense = torch.cat([rows @ image.flatten(1) for rows, image in images], dim=1)
    return dense.unflatten(2, features.shape[2:])


def truth_at(points: Tensor, pairs: Pairs, masks: Tensor) -> Tensor:
    """Read the pairs' target masks at their points. (S, M, P, 2), (T, H, W) bool -> (S, M, P)"""
    labels = []
    images = zip(pairs.target.split(pairs.counts, 1), points.split(pairs.counts, 1), strict=True)
    for target, points_of_image in images:
        n = target.shape[1] // pairs.groups
        # a mask is read once for all groups
        at = points_of_image.unflatten(1, (pairs.groups, n)).transpose(1, 2)
        maps = masks[target[:, :n]].float()
        values = sample(maps.flatten(0, 1).unsqueeze(1), at.flatten(2, 3).flatten(0, 1))
        labels.append(values.view(at.shape[:-1]).transpose(1, 2).flatten(1, 2))
    return torch.cat(labels, dim=1)

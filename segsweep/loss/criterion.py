"""The loss of Mask DINO: every prediction set is compared with the targets it is matched to.

Sets are the main output, the auxiliary outputs, the selected encoder tokens (interm) and the
denoising queries of every layer. Each gives five terms: ce, mask, dice, bbox and giou.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.loss.boxes import cxcywh_to_xyxy, generalized_iou
from segsweep.loss.matcher import ALPHA, Pairs, match
from segsweep.loss.points import PointLosses, draw_points, sample, uncertain_points

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.denoising import DenoisingQueries
    from segsweep.model.predictor import Output, Predictions

WEIGHTS = {"ce": 4.0, "mask": 5.0, "dice": 5.0, "bbox": 5.0, "giou": 2.0}


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


class Criterion(nn.Module):
    """Raw loss terms of every prediction set, and their weighted total.

    `weights`, and `costs` of the matcher, name ce, mask, dice, bbox and giou. Masks are compared
    at `points` points; the share `importance` of these are the most uncertain ones of `oversample`
    times as many. Everything is computed in float32.
    """

    empty_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        weights: Mapping[str, float] = WEIGHTS,
        costs: Mapping[str, float] = WEIGHTS,
        points: int = 12544,
        oversample: float = 3.0,
        importance: float = 0.75,
    ) -> None:
        super().__init__()
        self.weights, self.costs = dict(weights), dict(costs)
        self.points, self.oversample, self.importance = points, oversample, importance
        # stands in every official checkpoint; the focal loss does not read it
        self.register_buffer("empty_weight", torch.tensor([1.0] * num_classes + [0.1]))

    def forward(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the unweighted terms under their official names.

        loss_ce, loss_ce_0, ..., loss_ce_interm, loss_ce_dn, loss_ce_dn_0, ... and so on for mask,
        dice, bbox and giou. Denoising terms without denoising queries are 0.
        """
        with torch.autocast(output.mask_features.device.type, enabled=False):
            return self._terms(output, targets)

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms of `forward` by their weights. -> ()"""
        # "loss_ce_dn_0" is of the kind "ce"
        weights = [self.weights[name.split("_")[1]] for name in terms]
        stacked = torch.stack(list(terms.values()))
        return (stacked * stacked.new_tensor(weights)).sum()  # a dot product would be autocast

    def matcher_points(self, images: int, device: torch.device) -> Tensor:
        """Draw the points at which the matcher compares the masks of one set. -> (B, P, 2)"""
        return torch.rand(images, self.points, 2, device=device)

    def candidates(self, masks: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw what `loss_points` chooses from, for the masks of one set."""
        return draw_points(masks, self.points, self.oversample, self.importance, device)

    def loss_points(self, logits: Tensor, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """Choose the points at which the masks of one set are compared. (M, h, w) -> (M, P, 2)"""
        return uncertain_points(logits, *drawn, self.points)

    def _terms(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        truth, features = Truth.of(targets), output.mask_features.float()
        sets = in_order(output.matching, output.interm)
        noised = in_order(output.denoising) if output.denoising else None
        answers = denoising_pairs(output.queries, truth) if output.queries else None
        matched = sum(min(n, sets.logits.shape[2]) for n in truth.counts)

        # numbers are drawn set by set, in the order of the original program
        at, drawn, noised_masks = [], [], []
        for s in range(len(sets.logits)):
            at.append(self.matcher_points(len(targets), features.device))
            drawn.append(self.candidates(matched, features.device))
            if noised and answers and s < len(noised.logits):
                few = self.candidates(sum(answers.counts), features.device)
                one = noised.embeddings[s : s + 1]
                noised_masks.append(self._mask_losses(one, features, answers, truth, [few]))

        pairs = match(sets, features, targets, at, self.costs)
        losses = set_losses(sets, pairs, truth)
        losses |= self._mask_losses(sets.embeddings, features, pairs, truth, drawn)
        norm = num_masks(truth)
        layers = ["", *(f"_{i}" for i in range(len(output.matching.logits) - 1))]
        terms = named(losses, norm, [*layers, "_interm"][: len(sets.logits)])
        if noised and answers:
            losses = set_losses(noised, answers, truth)
            losses |= {k: torch.cat([part[k] for part in noised_masks]) for k in noised_masks[0]}
            norm = norm * answers.groups
        else:
            losses = {kind: features.new_zeros(len(layers)) for kind in losses}
        return terms | named(losses, norm, [f"_dn{layer}" for layer in layers])

    def _mask_losses(
        self,
        embeddings: Tensor,
        features: Tensor,
        pairs: Pairs,
        truth: Truth,
        drawn: Sequence[tuple[Tensor, Tensor]],
    ) -> dict[str, Tensor]:
        """Cross entropy and dice of the pairs' masks, summed. (S, B, Q, C), (B, C, h, w) -> (S,)"""
        logits = mask_logits(pairs.pick(embeddings), features, pairs.counts)
        sets = zip(logits.detach(), drawn, strict=True)
        points = torch.stack([self.loss_points(*one) for one in sets])
        there = truth_at(points, pairs, truth.masks)
        rows = (x.flatten(0, 1) for x in (logits, points, there))
        bce, dice = (loss.view(points.shape[:2]).sum(1) for loss in PointLosses.apply(*rows))
        return {"mask": bce, "dice": dice}


def in_order(layers: Predictions, interm: Predictions | None = None) -> Predictions:
    """Put the sets into the order in which they are evaluated: main, auxiliary, interm."""
    parts = {}
    for name in ("logits", "boxes", "embeddings"):
        sets = getattr(layers, name).roll(1, dims=0)
        parts[name] = sets if interm is None else torch.cat([sets, getattr(interm, name)])
    return replace(layers, **{name: part.float() for name, part in parts.items()})


def num_masks(truth: Truth) -> Tensor:
    """Count the targets, averaged over the ranks, at least 1. -> ()"""
    count = torch.tensor(float(sum(truth.counts)), device=truth.labels.device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count.clamp(min=1)


def denoising_pairs(queries: DenoisingQueries, truth: Truth) -> Pairs:
    """Pair every denoising query with the target it was made of. One row serves all sets."""
    rows = torch.arange(len(truth.labels), device=truth.labels.device).split(truth.counts)
    target = torch.cat([row.repeat(queries.groups) for row in rows])
    counts = [queries.groups * n for n in truth.counts]
    return Pairs(torch.cat(queries.slots)[None], target[None], counts, queries.groups)


def set_losses(sets: Predictions, pairs: Pairs, truth: Truth) -> dict[str, Tensor]:
    """Class and box losses of every set, summed over its queries. -> (S,) each"""
    logits, boxes = pairs.pick(sets.logits), pairs.pick(sets.boxes)
    labels = truth.labels[pairs.target].expand(logits.shape[:2])
    hit = logits.gather(2, labels.unsqueeze(2))
    # as if every class of every query were absent, corrected where a pair says otherwise
    ce = absent(sets.logits).flatten(1).sum(1) + (present(hit) - absent(hit)).flatten(1).sum(1)
    target = truth.boxes[pairs.target]
    giou = generalized_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target))
    return {"ce": ce, "bbox": (boxes - target).abs().sum((1, 2)), "giou": (1 - giou).sum(1)}


def present(logits: Tensor) -> Tensor:
    """Focal loss of classes that are there (Lin 2017, gamma 2)."""
    return ALPHA * logits.neg().sigmoid() ** 2 * F.softplus(-logits)


def absent(logits: Tensor) -> Tensor:
    """Focal loss of classes that are not there."""
    return (1 - ALPHA) * logits.sigmoid() ** 2 * F.softplus(logits)


def mask_logits(embeddings: Tensor, features: Tensor, counts: Sequence[int]) -> Tensor:
    """Make the masks of queries that stand image after image. -> (S, M, h, w)

    `embeddings` (S, M, C), `features` (B, C, h, w), `counts` of the M queries of each image.
    """
    images = zip(embeddings.split(counts, dim=1), features, strict=True)
    dense = torch.cat([rows @ image.flatten(1) for rows, image in images], dim=1)
    return dense.unflatten(2, features.shape[2:])


def truth_at(points: Tensor, pairs: Pairs, masks: Tensor) -> Tensor:
    """Read the pairs' target masks at their points. (S, M, P, 2), (T, H, W) bool -> (S, M, P)"""
    found = []
    images = zip(pairs.target.split(pairs.counts, 1), points.split(pairs.counts, 1), strict=True)
    for target, at in images:
        n = target.shape[1] // pairs.groups
        # a mask is read once for all groups
        at = at.unflatten(1, (pairs.groups, n)).transpose(1, 2)
        maps = masks[target[:, :n]].float()
        values = sample(maps.flatten(0, 1).unsqueeze(1), at.flatten(2, 3).flatten(0, 1))
        found.append(values.view(at.shape[:-1]).transpose(1, 2).flatten(1, 2))
    return torch.cat(found, dim=1)


def named(losses: Mapping[str, Tensor], norm: Tensor, suffixes: Sequence[str]) -> dict[str, Tensor]:
    """Divide by the number of masks and give every set's term its official name."""
    return {
        f"loss_{kind}{suffix}": term
        for kind, terms in losses.items()
        for suffix, term in zip(suffixes, (terms / norm).unbind(), strict=True)
    }

"""The loss of Mask DINO (Li 2023).

Sets are the main output, the auxiliary outputs, the selected encoder tokens (interm) and the
denoising queries of every layer. Each gives five terms: ce, mask, dice, bbox and giou.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segsweep.loss.at_once import AtOnce
from segsweep.loss.boxes import cxcywh_to_xyxy, generalized_iou
from segsweep.loss.classes import Focal
from segsweep.loss.criterion import Criterion, num_masks
from segsweep.loss.matcher import match
from segsweep.loss.outputs import PredictionSets
from segsweep.loss.pairs import Pairs, Truth

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.outputs import DenoisingQueries, Output

WEIGHTS = {"ce": 4.0, "mask": 5.0, "dice": 5.0, "bbox": 5.0, "giou": 2.0}


class MaskDINOCriterion(Criterion):
    """Focal class loss, masks and boxes of matched queries and of denoising queries.

    Terms: loss_ce, loss_ce_0, ..., loss_ce_interm, loss_ce_dn, loss_ce_dn_0, ... and so on for
    mask, dice, bbox and giou. Denoising terms without denoising queries are 0.
    """

    stems = {kind: f"loss_{kind}" for kind in WEIGHTS}

    def __init__(
        self, num_classes: int, weights: Mapping[str, float] = WEIGHTS, points: int = 12544
    ) -> None:
        super().__init__(Focal(), num_classes, weights, points)

    def _terms(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        truth, features = Truth.of(targets), output.mask_features.float()
        norm, sets = num_masks(truth), in_order(output.matching, output.interm)
        noised = in_order(output.denoising) if output.denoising else None
        answers = denoising_pairs(output.queries, truth) if output.queries else None
        matched = truth.matched(sets.logits.shape[2])

        inputs = [features, sets.embeddings, *([noised.embeddings] if noised else [])]
        masks = AtOnce(self.weights, inputs)
        seen, embeddings, *noised_embeddings = masks.leaves

        # numbers are drawn set by set, in the order of the original program
        at, drawn = [], []
        for s in range(len(sets.logits)):
            at.append(self.matcher_points(len(targets), features.device))
            drawn.append(self.candidates(matched, features.device))
            if noised and answers and s < len(noised.logits):
                candidates = [self.candidates(sum(answers.counts), features.device)]
                of_set, share = noised_embeddings[0][s : s + 1], norm * answers.groups
                masks.add(self._mask_losses(of_set, seen, answers, truth, candidates, share))

        pairs = match(sets, features, targets, at, self.weights, self.classify)
        losses = self._query_losses(sets, pairs, truth, norm)
        masks.add(self._mask_losses(embeddings, seen, pairs, truth, drawn, norm))
        *noised_masks, matched_masks = masks.losses()
        losses |= matched_masks
        layers = ["", *(f"_{i}" for i in range(len(output.matching.logits) - 1))]
        terms = self._named(losses, [*layers, "_interm"][: len(sets.logits)])
        if noised and answers:
            losses = self._query_losses(noised, answers, truth, norm * answers.groups)
            losses |= {k: torch.cat([part[k] for part in noised_masks]) for k in noised_masks[0]}
        else:
            losses = {kind: features.new_zeros(len(layers)) for kind in losses}
        return terms | self._named(losses, [f"_dn{layer}" for layer in layers])

    def _query_losses(
        self, sets: PredictionSets, pairs: Pairs, truth: Truth, norm: Tensor
    ) -> dict[str, Tensor]:
        """Class and box losses. -> (S,) each"""
        losses = super()._query_losses(sets, pairs, truth, norm)
        assert sets.boxes is not None
        return losses | box_losses(pairs.pick(sets.boxes), truth.boxes[pairs.target], norm)


def box_losses(boxes: Tensor, target: Tensor, norm: Tensor) -> dict[str, Tensor]:
    """L1 distance and 1 - generalized IoU of pairs. (S, M, 4), (S, M, 4) cxcywh -> (S,) each"""
    giou = generalized_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target))
    return {"bbox": (boxes - target).abs().sum((1, 2)) / norm, "giou": (1 - giou).sum(1) / norm}


def in_order(layers: PredictionSets, interm: PredictionSets | None = None) -> PredictionSets:
    """Put the sets into the order in which they are evaluated: main, auxiliary, interm."""
    sets = layers.map(lambda x: x.roll(1, dims=0))
    if interm is not None:
        parts = zip(vars(sets).values(), vars(interm).values(), strict=True)
        sets = PredictionSets(*map(torch.cat, parts))
    return sets.map(Tensor.float)


def denoising_pairs(queries: DenoisingQueries, truth: Truth) -> Pairs:
    """Pair every denoising query with the target it was made of. One row serves all sets."""
    rows = torch.arange(len(truth.labels), device=truth.labels.device).split(truth.counts)
    target = torch.cat([row.repeat(queries.groups) for row in rows])
    counts = [queries.groups * n for n in truth.counts]
    return Pairs(torch.cat(queries.slots)[None], target[None], counts, queries.groups)

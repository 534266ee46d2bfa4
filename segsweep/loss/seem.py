"""The loss of SEEM (Zou 2023) on object queries, that of Mask2Former (Cheng 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from segsweep.loss.at_once import AtOnce
from segsweep.loss.classes import Softmax
from segsweep.loss.criterion import Criterion, num_masks
from segsweep.loss.matcher import match
from segsweep.loss.pairs import Truth

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.outputs import Output

WEIGHTS = {"ce": 2.0, "mask": 5.0, "dice": 5.0}


class SEEMCriterion(Criterion):
    """Class cross entropy with "no object" and masks of matched queries, without boxes.

    Terms: loss_mask_ce_i, loss_mask_bce_i and loss_mask_dice_i of the i-th set from the end: 0 is
    the result, the last number are the untouched queries.
    """

    stems = {"ce": "loss_mask_ce", "mask": "loss_mask_bce", "dice": "loss_mask_dice"}

    def __init__(
        self,
        num_classes: int,
        weights: Mapping[str, float] = WEIGHTS,
        points: int = 12544,
        no_object: float = 0.1,
    ) -> None:
        super().__init__(Softmax(no_object), num_classes, weights, points, no_object, saved=False)

    def _terms(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        truth, features = Truth.of(targets), output.mask_features.float()
        norm, sets = num_masks(truth), output.matching.map(lambda x: x.flip(0).float())
        matched = truth.matched(sets.logits.shape[2])
        # numbers are drawn set by set, in the order of the original program
        at, drawn = [], []
        for _ in sets.logits:
            at.append(self.matcher_points(len(targets), features.device))
            drawn.append(self.candidates(matched, features.device))
        pairs = match(sets, features, targets, at, self.weights, self.classify)
        losses = self._query_losses(sets, pairs, truth, norm)
        masks = AtOnce(self.weights, [features, sets.embeddings])
        seen, embeddings = masks.leaves
        masks.add(self._mask_losses(embeddings, seen, pairs, truth, drawn, norm))
        losses |= masks.losses()[0]
        return self._named(losses, [f"_{i}" for i in range(len(sets.logits))])

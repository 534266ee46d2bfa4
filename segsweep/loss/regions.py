"""The set loss of masks that are told classes: one for the region of each class that is seen.

That of Mask2Former (Cheng 2022) as in the published code of Conv-LoRA (Zhong 2024,
arXiv:2401.17868): the matcher weighs its costs, the loss adds its three terms as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.base import BACKGROUND
from segsweep.loss.base import BaseCriterion
from segsweep.loss.foreground import labels_of
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.seem import SEEMCriterion

if TYPE_CHECKING:
    from segsweep.data.loader import Target

COSTS = {"ce": 2.0, "mask": 5.0, "dice": 5.0}


class RegionCriterion(SEEMCriterion):
    """Class cross entropy, mask cross entropy and dice of one set of masks, at the input's size.

    `classes` are K; the last of them is the background where it is one (`background`).
    """

    stems = {"ce": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}

    def __init__(
        self, classes: int, background: bool, points: int = 12544, no_object: float = 0.1
    ) -> None:
        super().__init__(classes, COSTS, points, no_object)
        self.last = classes - 1 if background else None

    def forward(self, output: Any, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the three terms of `Masks`; see `BaseCriterion`."""
        with torch.autocast(output.logits.device.type, enabled=False):
            size = labels_of(targets[0]).shape
            logits = F.interpolate(output.logits.float(), size, mode="bilinear")
            # the factors of masks that are given as they are
            unit = torch.eye(logits.shape[1], device=logits.device).expand(1, len(logits), -1, -1)
            sets = PredictionSets(output.classes.float()[None], None, unit)
            whole = Output(sets, None, None, None, logits)
            terms = self._terms(whole, [with_background(target, self.last) for target in targets])
        return {name.removesuffix("_0"): term for name, term in terms.items()}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms as they are. -> ()"""
        return BaseCriterion.total(self, terms)


def with_background(target: Target, background: int | None) -> Target:
    """Return a target whose background, if it is a class and seen, is a region like the others."""
    outside = labels_of(target) == BACKGROUND
    if background is None or not outside.any():
        return target
    return replace(
        target,
        labels=torch.cat([target.labels, target.labels.new_tensor([background])]),
        masks=torch.cat([target.masks, outside[None]]),
        boxes=torch.cat([target.boxes, target.boxes.new_zeros(1, 4)]),  # nobody reads them
    )

"""Losses of one foreground, pixel by pixel: the structure loss and the balanced cross entropy.

As in the published code of Conv-LoRA (Zhong 2024, arXiv:2401.17868): autogluon/multimodal,
`structure_loss.py` and `bce_loss.py`. What nobody labelled (IGNORE) is left out of every sum.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.base import IGNORE
from segsweep.loss.base import BaseCriterion

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.outputs import Masks

BORDER = 31  # pixels of the square whose mean says how near a border is
TINY = 1e-10  # of a pixel, where there is no foreground


class ForegroundCriterion(BaseCriterion):
    """Compares the first mask, at the input's size, with where class 0 is."""

    def forward(self, output: Masks, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the terms; see `BaseCriterion`."""
        maps = torch.stack([labels_of(target) for target in targets])[:, None]
        with torch.autocast(maps.device.type, enabled=False):
            logits = output.logits[:, :1].float()
            logits = F.interpolate(logits, maps.shape[2:], mode="bilinear", align_corners=False)
            return self.terms(logits, (maps == 0).float(), (maps != IGNORE).float())

    @abstractmethod
    def terms(self, logits: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Compare logits with truth where it is known, 0 or 1. 3 x (B, 1, H, W)"""


class StructureLoss(ForegroundCriterion):
    """Cross entropy and IoU, both of which are to weigh pixels near borders more (Wei 2020, F3Net).

    As released, the weight cancels in the cross entropy, which is the plain mean over the batch;
    `as_published` it counts there, too. What lies outside of the image is background to the weight,
    and so is what is unknown.
    """

    def __init__(self, as_published: bool = False) -> None:
        super().__init__()
        self.as_published = as_published

    def terms(self, logits: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Compute both terms; see `ForegroundCriterion`."""
        near = _means(_means(truth, (BORDER, 1)), (1, BORDER))  # of a square: far fewer sums
        weight = known * (1 + 5 * (near - truth).abs())
        bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        if self.as_published:
            cross_entropy = (_sum(weight * bce) / _sum(weight).clamp(min=1)).mean()
        else:
            cross_entropy = _mean(bce, known)
        p = logits.sigmoid()
        both, all_ = _sum(p * truth * weight), _sum((p + truth) * weight)
        iou = 1 - (both + 1) / (all_ - both + 1)
        return {"loss_bce": cross_entropy, "loss_iou": iou.mean()}


class BalancedBCE(ForegroundCriterion):
    """Cross entropy in which foreground and background of a batch weigh the same."""

    def terms(self, logits: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Compute the only term; see `ForegroundCriterion`."""
        inside, outside = truth.sum() + TINY, ((1 - truth) * known).sum()
        bce = F.binary_cross_entropy_with_logits(
            logits, truth, pos_weight=outside / inside, reduction="none"
        )
        return {"loss_balanced_bce": inside / (inside + outside) * _mean(bce, known)}


def labels_of(target: Target) -> Tensor:
    """Return the label map that a semantic image has. (H, W) uint8"""
    assert target.label_map is not None
    return target.label_map


def _sum(x: Tensor) -> Tensor:
    """Sum of each image. (B, 1, H, W) -> (B, 1)"""
    return x.sum((2, 3))


def _mean(x: Tensor, known: Tensor) -> Tensor:
    """Mean over the known pixels of the batch. 2 x (B, 1, H, W) -> ()"""
    return (x * known).sum() / known.sum().clamp(min=1)


def _means(values: Tensor, window: tuple[int, int]) -> Tensor:
    """Means over windows around each pixel, what lies outside counts as 0. (B, 1, H, W) -> same"""
    return F.avg_pool2d(values, window, stride=1, padding=(window[0] // 2, window[1] // 2))

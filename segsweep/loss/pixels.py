"""The loss of the class of every pixel: cross entropy at the size of the label map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.base import BACKGROUND, IGNORE
from segsweep.loss.base import BaseCriterion
from segsweep.loss.foreground import labels_of

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.outputs import PixelLogits


class PixelCriterion(BaseCriterion):
    """Cross entropy of the known pixels of a batch.

    Args:
        background: the class that BACKGROUND is; None where no pixel is of no class.
        known: whether the mean is over the known pixels; else over all of the batch, padding
            too, as in mmseg (`avg_non_ignore=False`).
    """

    def __init__(self, background: int | None, known: bool = False) -> None:
        super().__init__()
        self.background = IGNORE if background is None else background
        self.known = known

    def forward(self, output: PixelLogits, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the only term; see `BaseCriterion`."""
        truth = torch.stack([labels_of(target) for target in targets]).long()
        truth = truth.masked_fill(truth == BACKGROUND, self.background)
        with torch.autocast(truth.device.type, enabled=False):
            logits = output.logits.float()
            logits = F.interpolate(logits, truth.shape[1:], mode="bilinear", align_corners=False)
            total = F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="sum")
        pixels = (truth != IGNORE).sum().clamp(min=1) if self.known else truth.numel()
        return {"loss_ce": total / pixels}

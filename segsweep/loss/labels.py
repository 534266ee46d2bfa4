"""The loss of the class of a picture: cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.loss.base import BaseCriterion

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.outputs import PictureLogits


class LabelCriterion(BaseCriterion):
    """Cross entropy, the mean over the pictures of a batch; a target has its one label."""

    def forward(self, output: PictureLogits, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the only term; see `BaseCriterion`."""
        truth = torch.cat([target.labels for target in targets])
        with torch.autocast(truth.device.type, enabled=False):
            return {"loss_ce": F.cross_entropy(output.logits.float(), truth)}

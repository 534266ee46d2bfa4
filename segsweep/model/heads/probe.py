"""A linear classifier upon a pooled vector, as linear probing has it (He 2022, MAE's linprobe)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.loss.outputs import PictureLogits
from segsweep.model.found import PictureClass
from segsweep.model.heads.pyramid import PyramidHead

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.model.necks.base import Neck

EPS = 1e-6
STD = 0.01  # of the weights, drawn from a normal distribution cut at 2


class ProbeHead(PyramidHead):
    """Mean of the last map, a batch norm without weights, and a linear layer.

    Args:
        neck: gives the maps.
        classes: their number, K.
    """

    def __init__(self, neck: Neck, classes: int) -> None:
        super().__init__(neck)
        self.norm = nn.BatchNorm1d(neck.channels[-1], eps=EPS, affine=False)
        self.fc = nn.Linear(neck.channels[-1], classes)
        self.reset_classes()

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        return {"logits": "logits of each class of the picture by softmax"}

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw `fc`; see `PyramidHead`."""
        nn.init.trunc_normal_(self.fc.weight, std=STD, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def read(self, levels: list[Tensor]) -> PictureLogits:
        """Levels (B, C_l, H_l, W_l) -> logits (B, K). Raises UserError to train on one picture."""
        pooled = levels[-1].flatten(2).mean(2)
        if self.norm.training and len(pooled) == 1:
            raise UserError(
                "a forward of one picture has nothing to norm by; choose hparams.batch_size (and "
                "hparams.micro_batch, if it is given) of 2 or more for each device"
            )
        return PictureLogits(self.fc(self.norm(pooled)))

    def tensors(self, output: PictureLogits) -> dict[str, Tensor]:
        """Return `logits` (B, K)."""
        return {"logits": output.logits}

    def predict(
        self, output: PictureLogits, views: Sequence[View], least: float = 0.0
    ) -> list[PictureClass]:
        """Return the class of each image."""
        return [PictureClass(scores) for scores in output.logits.float().softmax(1)]

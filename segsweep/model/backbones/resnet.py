"""ResNets whose batch norm is held as buffers, as detectron2 does."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.backbones import timm
from segsweep.model.backbones.base import Backbone

SIGN = r"(layer1|res2)\.0\.conv1\.weight$"
SMALL = {
    "name": "resnet50",
    "kwargs": {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 16], "base_width": 64},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> Backbone:
    """Build a ResNet of timm; raises as `timm.build`."""
    norms = {"norm_layer": FrozenBatchNorm, "zero_init_last": False}
    return timm.build(name, {**norms, **kwargs}, drop_path, pretrained)


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine map are buffers: constants, not parameters."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ):
        super().__init__()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            constant = torch.full((channels,), float(value), device=device, dtype=dtype)
            self.register_buffer(name, constant)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)

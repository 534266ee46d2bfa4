"""The FocalNets of SEEM's Focal-T v1, with depthwise convolutions in every block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from segsweep.model.backbones.focal import SMALL, FocalFeatures, focalnet

if TYPE_CHECKING:
    from timm.models.focalnet import FocalNet, FocalNetBlock

    from segsweep.model.backbones.base import Backbone

__all__ = ["SMALL", "build"]


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> Backbone:
    """Build such a FocalNet; raises as `timm.create`."""
    return FocalFeatures(depthwise(focalnet(name, "focal_dw", kwargs, drop_path, pretrained)))


class DepthwiseBlock(nn.Module):
    """The block of SEEM's Focal-T v1, holding the parts of a timm block with post-norm.

    A depthwise convolution precedes each half, and the norms act on the stream, not on what is
    added to it.
    """

    def __init__(self, block: FocalNetBlock):
        super().__init__()
        dw1, dw2 = (nn.Conv2d(block.dim, block.dim, 3, padding=1, groups=block.dim) for _ in "12")
        self.dw1, self.modulation, self.norm1_post = dw1, block.modulation, block.norm1_post
        self.dw2, self.mlp, self.norm2_post = dw2, block.mlp, block.norm2_post
        self.ls1, self.drop_path1 = block.ls1, block.drop_path1
        self.ls2, self.drop_path2 = block.ls2, block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        x = x + self.dw1(x)
        x = self.norm1_post(x + self.drop_path1(self.ls1(self.modulation(x))))
        x = x + self.dw2(x)
        return self.norm2_post(x + self.drop_path2(self.ls2(self.mlp(x))))


def depthwise(focal: FocalNet) -> FocalNet:
    """Turn a timm FocalNet with post-norm into the kind of SEEM's Focal-T v1, in place."""
    focal.stem.proj.padding = (3, 3)  # the 7 x 7 convolution of timm has 2
    for stage in focal.layers:
        blocks = cast("Iterable[FocalNetBlock]", stage.get_submodule("blocks"))
        stage.add_module("blocks", nn.ModuleList(DepthwiseBlock(block) for block in blocks))
    return focal

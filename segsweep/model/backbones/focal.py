"""FocalNets (Yang 2022, arXiv:2203.11926) as SEEM uses them, made of timm's blocks.

Images are multiples of 32 high and wide, as every collated batch is: other sizes the released
program pads before each strided convolution and timm does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from timm.models.focalnet import FocalNet, FocalNetBlock


class FocalFeatures(nn.Module):
    """A timm FocalNet with a norm for every output; the next stage sees the map before the norm."""

    def __init__(self, focal: FocalNet):
        super().__init__()
        self.stem, self.layers = focal.stem, focal.layers
        self.channels = [int(info["num_chs"]) for info in focal.feature_info]
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C_i, H_i, W_i) of all stages"""
        x, maps = self.stem(images), []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            normed = self.get_submodule(f"norm{i}")(x.permute(0, 2, 3, 1))
            maps.append(normed.permute(0, 3, 1, 2).contiguous())
        return maps


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

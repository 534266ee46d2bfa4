"""The simple feature pyramid (Li 2022, arXiv:2203.16527): all levels are made of one map.

Names follow the official state dict (detectron2 `SimpleFeaturePyramid`, VFM-Adapter).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.norm2d import LayerNorm2d
from segsweep.model.necks.base import Neck
from segsweep.model.necks.sizes import LEVELS, check_levels, check_size


def build(
    channels: list[int],
    strides: list[int],
    scales: Sequence[float] = LEVELS,
    out: int = 256,
    top: str = "pool",
) -> SimpleFeaturePyramid:
    """Build it upon the last map; raises as `check_levels`."""
    check_levels(scales, top)
    return SimpleFeaturePyramid(channels[-1], strides[-1], scales, out, top)


class SimpleFeaturePyramid(Neck):
    """Levels of `out` channels, each the map at a scale; nothing passes between them.

    Args:
        channels, stride: of the map.
        scales: of the levels, from fine to coarse.
        out: channels of the levels.
        top: one more level of half the last one's size: "pool" is a maximum over 2 x 2 cells, as
            in the program of VFM-Adapter, "subsample" every other cell, as in detectron2, "none"
            no such level.
    """

    def __init__(self, channels: int, stride: int, scales: Sequence[float], out: int, top: str):
        super().__init__()
        self.stride, self.scales, self.top = stride, list(scales), top
        self.strides = [stride / scale for scale in scales]
        self.names = [f"simfp_{int(log2(s))}" for s in self.strides]
        for name, scale in zip(self.names, scales, strict=True):
            self.add_module(name, level(channels, scale, out))
        if top != "none":
            self.strides.append(2 * self.strides[-1])
        self.channels = [out] * len(self.strides)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The last map (B, C, H, W) -> levels (B, out, H scale, W scale), rounded down

        Raises:
            UserError: a level has no cell, see `check_size`.
        """
        x = maps[-1]
        height, width = (cells * self.stride for cells in x.shape[2:])
        check_size(height, width, self.stride, self.scales, self.top)
        levels = [self.get_submodule(name)(x) for name in self.names]
        if self.top == "pool":
            levels.append(F.max_pool2d(levels[-1], 2))
        elif self.top == "subsample":
            levels.append(levels[-1][..., ::2, ::2])
        return levels


def level(channels: int, scale: float, out: int) -> nn.Sequential:
    """Build what brings a map to a scale, one of SCALES, and to `out` channels."""
    half, quarter = channels // 2, channels // 4
    if scale == 4:
        fine = [doubled(channels, half), LayerNorm2d(half), nn.GELU(), doubled(half, quarter)]
        channels = quarter
    elif scale == 2:
        fine, channels = [doubled(channels, half)], half
    else:
        fine = [] if scale == 1 else [nn.MaxPool2d(int(1 / scale))]
    return nn.Sequential(*fine, NormedConv(channels, out, 1), NormedConv(out, out, 3))


def doubled(channels: int, out: int) -> nn.ConvTranspose2d:
    """Build a convolution to twice the size: (B, channels, H, W) -> (B, out, 2 H, 2 W)"""
    return nn.ConvTranspose2d(channels, out, kernel_size=2, stride=2)


class NormedConv(nn.Conv2d):
    """Convolution without bias and the layer norm over channels that it holds as `norm`."""

    def __init__(self, channels: int, out: int, kernel: int):
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)
        self.norm = LayerNorm2d(out)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H, W)"""
        return self.norm(super().forward(input))

"""The feature pyramid network (Lin 2017, arXiv:1612.03144): coarse levels added to finer ones.

As in mmdet, without norms and activations; names follow its state dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
from segsweep.model.necks.base import Neck

EXTRAS = ("pool", "conv")


def build(
    channels: list[int],
    strides: list[int],
    start: int = 0,
    outputs: int = 5,
    extra: str = "pool",
    out: int = 256,
) -> FPN:
    """Build it upon the maps from number `start` on.

    Raises:
        UserError: there is no such map, there are fewer outputs than maps, or no such `extra`.
    """
    if not 0 <= start < len(channels):
        message = f"model.neck.kwargs.start={start}: the backbone has {len(channels)} maps"
        raise UserError(f"{message}; choose 0 to {len(channels) - 1}")
    if outputs < (least := len(channels) - start):
        raise UserError(f"model.neck.kwargs.outputs={outputs}: must be at least {least}, a level "
                        "for each map of the backbone")  # fmt: skip
    if extra not in EXTRAS:
        message = f"model.neck.kwargs.extra={extra}: there are no such levels"
        raise UserError(message + choices(extra, EXTRAS))
    return FPN(channels, strides, start, outputs, extra, out)


class FPN(Neck):
    """Levels of `out` channels, one for each map from `start` on, and coarser ones beyond.

    Args:
        channels, strides: of the maps, from fine to coarse.
        start: the first map that is read, counted from 0.
        outputs: number of levels.
        extra: how levels beyond the maps are made, each of the one before it: "pool" takes every
            other cell, "conv" is a convolution of stride 2.
        out: channels of the levels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        start: int,
        outputs: int,
        extra: str,
        out: int,
    ):
        super().__init__()
        read = channels[start:]
        self.start, self.beyond, self.extra = start, outputs - len(read), extra
        self.lateral_convs = nn.ModuleList(convolution(each, out, 1) for each in read)
        self.fpn_convs = nn.ModuleList(convolution(out, out, 3) for _ in read)
        if extra == "conv":
            self.fpn_convs.extend(convolution(out, out, 3, stride=2) for _ in range(self.beyond))
        coarsest = strides[-1]
        self.strides = [*strides[start:], *(coarsest * 2**i for i in range(1, self.beyond + 1))]
        self.channels = [out] * outputs

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) -> levels (B, out, H_l, W_l); halves are rounded up"""
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps[self.start :], strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            coarse = F.interpolate(levels[i], levels[i - 1].shape[2:], mode="nearest")
            levels[i - 1] = levels[i - 1] + coarse
        levels = [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=False)]
        for _ in range(self.beyond):
            x, further = levels[-1], self.extra == "conv"
            levels.append(self.fpn_convs[len(levels)](x) if further else x[..., ::2, ::2])
        return levels


def convolution(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution under the name `conv`, drawn as mmdet draws it (Glorot 2010)."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv))

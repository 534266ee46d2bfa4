"""The all-MLP decode head of SegFormer (Xie 2021, arXiv:2105.15203), in both published forms.

Names follow the state dicts of mmseg (`SegformerHead`) and of NVlabs/SegFormer (whose head has an
unused layer beside, `conv_seg`). Letters: K classes, the background last where it is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.data.base import BACKGROUND
from segsweep.loss.outputs import PixelLogits
from segsweep.model.found import SemanticMap
from segsweep.model.heads import frames
from segsweep.model.heads.pyramid import PyramidHead
from segsweep.model.layers.norm2d import BatchNorm2d

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.model.necks.base import Neck


class SegFormerHead(PyramidHead):
    """Logits of the class of every pixel, at the size of the finest level.

    Args:
        neck: gives the levels.
        background: whether the last class is the background.
    """

    def __init__(self, neck: Neck, background: bool) -> None:
        super().__init__(neck)
        self.background = background

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        last = ", at the end the background" if self.background else ""
        return {"logits": f"logits of each class by softmax{last}; bilinear to the input's size"}

    def read(self, levels: list[Tensor]) -> PixelLogits:
        """Levels (B, C_l, H_l, W_l), from fine to coarse -> logits (B, K, H_0, W_0)"""
        raise NotImplementedError

    def tensors(self, output: PixelLogits) -> dict[str, Tensor]:
        """Return `logits` (B, K, h, w)."""
        return {"logits": output.logits}

    def predict(
        self, output: PixelLogits, views: Sequence[View], least: float = 0.0
    ) -> list[SemanticMap]:
        """Return the label map of each image."""
        logits = output.logits.float()
        return [self._best(each, view) for each, view in zip(logits, views, strict=True)]

    def _best(self, logits: Tensor, view: View) -> SemanticMap:
        """Logits (K, h, w) are resized; then the best class is taken, and its probability."""
        best = torch.empty(view[2], dtype=torch.uint8, device=logits.device)
        scores = logits.new_empty(view[2])
        for rows, few in frames.strips(logits, view, "bilinear"):
            highest, best[rows] = few.max(0)
            scores[rows] = (highest - few.logsumexp(0)).exp()
        if self.background:
            best[best == len(logits) - 1] = BACKGROUND
        return SemanticMap(best, scores, final=True)


class MMSegForm(SegFormerHead):
    """mmseg's: each level has a norm and an activation; they are fused from fine to coarse."""

    def __init__(
        self, neck: Neck, background: bool, channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__(neck, background)
        self.convs = nn.ModuleList(normed(each, channels) for each in neck.channels)
        self.fusion_conv = normed(channels * len(neck.channels), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.reset_classes()

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw `conv_seg`; see `PyramidHead`."""
        nn.init.normal_(self.conv_seg.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.conv_seg.get_parameter("bias"))

    def read(self, levels: list[Tensor]) -> PixelLogits:
        """Compute the logits; see `SegFormerHead`."""
        maps = [conv(level) for conv, level in zip(self.convs, levels, strict=True)]
        return PixelLogits(self.conv_seg(self.dropout(self.fusion_conv(joined(maps)))))


class NVlabsForm(SegFormerHead):
    """NVlabs': a plain linear layer for each level; they are fused from coarse to fine."""

    def __init__(
        self, neck: Neck, background: bool, channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__(neck, background)
        self.linears = [f"linear_c{i}" for i in range(1, len(neck.channels) + 1)]
        for name, each in zip(self.linears, neck.channels, strict=True):
            self.add_module(name, CellLinear(each, channels))
        self.linear_fuse = normed(channels * len(neck.channels), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, classes, 1)

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw `linear_pred` as torch draws it; see `PyramidHead`."""
        bound = self.linear_pred.in_channels**-0.5
        for parameter in self.linear_pred.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def read(self, levels: list[Tensor]) -> PixelLogits:
        """Compute the logits; see `SegFormerHead`."""
        named = zip(self.linears, levels, strict=True)
        maps = [self.get_submodule(name)(level) for name, level in named]
        return PixelLogits(self.linear_pred(self.dropout(self.linear_fuse(joined(maps, -1)))))


class CellLinear(nn.Module):
    """A linear layer upon the channels of each cell."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H, W)"""
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normed(channels: int, out: int) -> nn.Sequential:
    """Build a convolution of single cells without bias, `conv`, its norm `bn`, and the ReLU."""
    conv = nn.Conv2d(channels, out, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=BatchNorm2d(out), activate=nn.ReLU()))


def joined(maps: Sequence[Tensor], order: int = 1) -> Tensor:
    """Bring maps to the first one's size, and join them: (B, C, H_l, W_l) -> (B, L C, H_0, W_0)

    `order` -1 joins the last one first.
    """
    first, *others = maps
    resized = [F.interpolate(x, first.shape[2:], mode="bilinear") for x in others]
    return torch.cat([first, *resized][::order], dim=1)

"""The pixel decoder: a deformable encoder over all levels and one step of a feature pyramid.

Module names follow the official state dict (Li 2023, Mask DINO).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.layers.ffn import feed_forward
from segsweep.model.layers.norms import GROUPS
from segsweep.model.layers.position import (
    Shape,
    cell_centres,
    flat,
    map_position,
    padded_references,
    valid_sizes,
)
from segsweep.model.layers.seam import Seam


@dataclass
class PixelFeatures:
    """What the pixel decoder gives to the predictor."""

    mask_features: Tensor  # (B, mask_dim, H/4, W/4)
    levels: list[Tensor]  # (B, C, H_l, W_l) in the order of the encoder


class EncoderLayer(nn.Module):
    """Self-attention of one kind or another and feed-forward, each followed by its norm."""

    def __init__(self, attention: nn.Module, channels: int, ffn: int):
        super().__init__()
        self.self_attn = attention
        self.after_self_attn = Seam(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, ffn)
        self.linear2 = nn.Linear(ffn, channels)
        self.norm2 = nn.LayerNorm(channels)

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        """Everything behind the attention: its input and output (B, N, C) -> (B, N, C)"""
        x = self.norm1(x + self.after_self_attn(attended, x))
        return self.norm2(x + feed_forward(x, self.linear1, self.linear2))


class DeformableLayer(EncoderLayer):
    """An encoder layer whose tokens look at a few places on every level (Zhu 2021)."""

    def __init__(self, channels: int, heads: int, ffn: int, levels: int):
        super().__init__(DeformableAttention(channels, heads, levels), channels, ffn)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference: Tensor,
        shapes: Sequence[Shape],
        padding: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C), position (B, N, C), reference (B, N, L or 1, 2) -> (B, N, C)

        `padding` (B, N) is True where no token may look.
        """
        return self.update(x, self.self_attn(x + position, reference, x, shapes, padding))


class Encoder(nn.Module):
    """A stack of encoder layers."""

    def __init__(self, layers: Iterable[EncoderLayer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        """(B, N, C), and what every layer takes besides -> (B, N, C)"""
        for layer in self.layers:
            x = layer(x, *context)
        return x


class DeformableEncoder(nn.Module):
    """The encoder with its learned code of the levels."""

    def __init__(self, channels: int, heads: int, ffn: int, layers: int, levels: int):
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(levels, channels))
        self.encoder = Encoder(DeformableLayer(channels, heads, ffn, levels) for _ in range(layers))
        xavier_matrices(self.encoder)
        nn.init.normal_(self.level_embed)

    def forward(
        self, maps: Sequence[Tensor], padding: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Maps (B, C, H_l, W_l) of all levels -> the same, each cell having seen all levels.

        Cells where `padding` (B, H_l, W_l) is True are not seen. They count for the position code
        all the same, as in the released program.
        """
        shapes = [(m.shape[2], m.shape[3]) for m in maps]
        channels, device = maps[0].shape[1], maps[0].device
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        codes = zip(shapes, self.level_embed, strict=True)
        position = torch.cat([map_position(size, channels, device) + code for size, code in codes])
        if padding is None:
            unseen, reference = None, cell_centres(shapes, device)[None, :, None]
        else:
            unseen, reference = flat(padding), padded_references(shapes, valid_sizes(padding))
        tokens = self.encoder(tokens, position[None], reference, shapes, unseen)
        levels = zip(tokens.split([h * w for h, w in shapes], dim=1), shapes, strict=True)
        return [level.transpose(1, 2).unflatten(2, shape) for level, shape in levels]


class ConvNorm(nn.Conv2d):
    """Convolution without bias and the GroupNorm that it holds as `norm`."""

    def __init__(self, channels: int, out: int, kernel: int):
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, out)
        nn.init.kaiming_uniform_(self.weight, a=1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H, W)"""
        return self.norm(super().forward(input))


def convolution(channels: int, out: int, kernel: int) -> nn.Conv2d:
    """Convolution that keeps the size, with a bias that starts at zero."""
    conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(_bias(conv))
    return conv


class PixelDecoder(nn.Module):
    """Features of the backbone -> encoded levels and mask features.

    `channels` are those of the backbone's maps at strides 4, 8, 16, 32; `levels` says which of them
    (counted from 0) the encoder sees. `extra` further levels are made from the coarsest by strided
    convolution. Levels run from fine to coarse, or from coarse to fine if `coarse_first`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        levels: Sequence[int],
        extra: int = 1,
        coarse_first: bool = False,
        hidden: int = 256,
        heads: int = 8,
        ffn: int = 2048,
        layers: int = 6,
        mask_dim: int = 256,
    ):
        super().__init__()
        self.levels = sorted(levels, reverse=coarse_first)
        self.coarse_first = coarse_first
        coarsest = channels[max(levels)]
        projections = [_projection(channels[level], hidden) for level in self.levels]
        for i in range(extra):
            projections.append(_projection(hidden if i else coarsest, hidden, kernel=3, stride=2))
        self.input_proj = nn.ModuleList(projections)
        self.transformer = DeformableEncoder(hidden, heads, ffn, layers, len(projections))
        self.mask_features = convolution(hidden, mask_dim, 1)
        self.adapter_1 = ConvNorm(channels[0], hidden, 1)  # the lateral step, not a PEFT adapter
        self.layer_1 = ConvNorm(hidden, hidden, 3)

    def forward(
        self, features: Sequence[Tensor], padding: Sequence[Tensor] | None = None
    ) -> PixelFeatures:
        """Maps (B, C_i, H_i, W_i) at strides 4, 8, 16, 32 -> PixelFeatures. Runs in float32.

        `padding`, one mask (B, H_l, W_l) per level of the encoder, is True outside of the image.
        """
        # The released model never passes its masks on: padded area counts as valid there, and so
        # it does here unless a caller says otherwise.
        with torch.autocast(features[0].device.type, enabled=False):
            features = [feature.float() for feature in features]
            levels = self.transformer(self._project(features), padding)
            lateral = self.adapter_1(features[0])
            finest = levels[-1 if self.coarse_first else 0]
            finest = F.interpolate(finest, lateral.shape[-2:], mode="bilinear", align_corners=False)
            return PixelFeatures(self.mask_features(self.layer_1(lateral + finest).relu()), levels)

    def _project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Bring all levels to C channels and make the extra ones."""
        levels = zip(self.input_proj, self.levels, strict=False)
        maps = [project(features[level]) for project, level in levels]
        extra, coarsest = [], features[max(self.levels)]
        for project in self.input_proj[len(maps) :]:
            coarsest = project(coarsest)
            extra.append(coarsest)
        return extra[::-1] + maps if self.coarse_first else maps + extra


def xavier_matrices(module: nn.Module) -> None:
    """Draw every matrix of a transformer anew, then its deformable attentions (Zhu 2021)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for child in module.modules():
        if isinstance(child, DeformableAttention):
            child.reset_parameters()


def _projection(channels: int, hidden: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, hidden, kernel, stride, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(_bias(conv))
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, hidden))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias

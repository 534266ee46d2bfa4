"""SEEM's pixel decoder: an encoder over the coarsest map, then a feature pyramid down to stride 4.

Module names follow the official state dict (Zou 2023, SEEM; the decoder is that of Cheng 2021,
MaskFormer).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.attention import Attention
from segsweep.model.layers.position import map_position
from segsweep.model.necks.pixel_decoder import (
    ConvNorm,
    Encoder,
    EncoderLayer,
    PixelFeatures,
    convolution,
    xavier_matrices,
)


class GlobalLayer(EncoderLayer):
    """An encoder layer whose tokens see each other all (Vaswani 2017)."""

    def __init__(self, channels: int, heads: int, ffn: int):
        super().__init__(Attention(channels, heads), channels, ffn)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, C), position (N, C) -> (B, N, C)"""
        query = x + position
        return self.update(x, self.self_attn(query, query, x))


class FPNDecoder(nn.Module):
    """Features of the backbone -> levels at strides 32, 16, 8 and mask features at stride 4.

    Args:
        channels: of the backbone's maps at strides 4, 8, 16, 32.
        hidden: C, channels of the levels; a multiple of 32 (GroupNorm).
        heads: of the encoder's attention.
        ffn: channels of its feed-forward.
        layers: how many encoder layers.
        mask_dim: channels of the mask features.
    """

    def __init__(
        self,
        channels: Sequence[int],
        hidden: int = 512,
        heads: int = 8,
        ffn: int = 2048,
        layers: int = 6,
        mask_dim: int = 512,
    ):
        super().__init__()
        self.input_proj = convolution(channels[3], hidden, 1)
        encoder = Encoder(GlobalLayer(hidden, heads, ffn) for _ in range(layers))
        xavier_matrices(encoder)
        self.transformer = nn.ModuleDict({"encoder": encoder})
        self.layer_4 = ConvNorm(hidden, hidden, 3)
        self.adapter_3 = ConvNorm(channels[2], hidden, 1)  # lateral steps, not PEFT adapters
        self.layer_3 = ConvNorm(hidden, hidden, 3)
        self.adapter_2 = ConvNorm(channels[1], hidden, 1)
        self.layer_2 = ConvNorm(hidden, hidden, 3)
        self.adapter_1 = ConvNorm(channels[0], hidden, 1)
        self.layer_1 = ConvNorm(hidden, hidden, 3)
        self.mask_features = convolution(hidden, mask_dim, 3)

    def forward(self, features: Sequence[Tensor]) -> PixelFeatures:
        """Maps (B, C_i, H_i, W_i) at strides 4, 8, 16, 32 -> PixelFeatures, coarse to fine"""
        res2, res3, res4, res5 = features
        y4 = self.layer_4(self.encode(res5)).relu()
        y3 = self.layer_3(_add(self.adapter_3(res4), y4)).relu()
        y2 = self.layer_2(_add(self.adapter_2(res3), y3)).relu()
        y1 = self.layer_1(_add(self.adapter_1(res2), y2)).relu()
        return PixelFeatures(self.mask_features(y1), [y4, y3, y2])

    def encode(self, coarsest: Tensor) -> Tensor:
        """Let the cells of the coarsest map see each other. (B, C_4, H, W) -> (B, C, H, W)"""
        x = self.input_proj(coarsest)
        shape = (x.shape[2], x.shape[3])
        position = map_position(shape, x.shape[1], x.device)
        x = x.flatten(2).transpose(1, 2).float()  # the stream between the norms, whatever autocast
        x = self.transformer["encoder"](x, position)
        return x.transpose(1, 2).unflatten(2, shape)


def _add(lateral: Tensor, coarse: Tensor) -> Tensor:
    """One step of the pyramid: the coarser map, each cell repeated, onto the lateral one."""
    return lateral + F.interpolate(coarse, lateral.shape[-2:], mode="nearest")

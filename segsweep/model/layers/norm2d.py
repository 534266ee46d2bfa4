"""Norms of maps: over the channels of a cell, and over the cells of a batch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every cell of a map, with SAM's epsilon."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        cells = input.permute(0, 2, 3, 1)
        normed = F.layer_norm(cells, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all cells of a batch (Ioffe 2015, arXiv:1502.03167).

    One single cell has no variance: it is normed by the running statistics, also in training.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        if input[:, 0].numel() > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

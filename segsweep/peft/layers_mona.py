"""The module of Mona."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.block import joined
from segsweep.model.layers.seam import Tokens

KERNELS = 3, 5, 7


class Cognitive(nn.Module):
    """The filling x + up(Drop(GELU(v))), v = down(γ LN(x) + γ_x x) filtered as a map.

    Filters of several sizes see each channel by itself, and their mean is added; a 1 x 1 one that
    mixes channels adds its result. Prefix tokens have no place in a map, and pass as they are.

    Args:
        width: d, channels of the tokens.
        hidden: h, channels of the map that is filtered.
        dropout: probability that a value of it is dropped in training.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.gamma_x = nn.Parameter(torch.ones(width))
        self.down = nn.Linear(width, hidden)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(hidden, hidden, k, padding=k // 2, groups=hidden) for k in KERNELS
        )
        self.pointwise = nn.Conv2d(hidden, hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(hidden, width)

    def forward(self, y: Tensor, stream: Tensor, tokens: Tokens) -> Tensor:
        """Adapt the stream y on its grid: (B, P + H W, C) -> (B, P + H W, C)."""
        prefix, x = y[:, : tokens.prefix], y[:, tokens.prefix :]
        v = self.down(self.gamma * self.norm(x) + self.gamma_x * x)
        v = v.transpose(1, 2).unflatten(2, tokens.grid)
        v = v + sum(conv(v) for conv in self.depthwise) / len(KERNELS)
        v = v + self.pointwise(v)
        v = v.flatten(2).transpose(1, 2)
        return joined(prefix, x + self.up(self.dropout(F.gelu(v))))

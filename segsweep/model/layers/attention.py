"""Regular attention and the small layers beside it, under the names of torch's own modules."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with the state dict of `torch.nn.MultiheadAttention`.

    The fused projection is asked for once per forward, so that an edited weight is computed once.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
    ) -> Tensor:
        """Queries (B, Q, C), keys and values (B, N, C) -> (B, Q, C)

        `blocked`, broadcast to (B, heads, Q, N), is True where a query must not see a key; each
        query must see at least one.
        """
        weight, bias, c = self.in_proj_weight, self.in_proj_bias, query.shape[-1]
        if query is key:  # one product gives both
            q, k = F.linear(query, weight[: 2 * c], bias[: 2 * c]).chunk(2, -1)
        else:
            q = F.linear(query, weight[:c], bias[:c])
            k = F.linear(key, weight[c : 2 * c], bias[c : 2 * c])
        v = F.linear(value, weight[2 * c :], bias[2 * c :])
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        seen = None if blocked is None else ~blocked
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, channels: int, hidden: int, out: int, depth: int):
        super().__init__()
        sizes = [channels, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> (..., out)"""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)

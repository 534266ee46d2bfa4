"""Bottlenecks that see the map: convolutions by kernels that are learned, or made by hypernetworks.

What all of them share stands in the place `shared` of the host: `nn.ModuleDict` with a `Hypernet`
for the adapters at each place, under its name, and the masks' embeddings (T, z) under `masks`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.block import joined
from segsweep.model.layers.seam import Tokens


class Bypass(nn.Module):
    """y + s up(drop(h)), h = phi(conv(phi(down(u)))), phi(x) = x sigmoid(1.702 x).

    Args:
        width: d, channels of the tokens.
        rank: r, channels of the bottleneck.
        scale: s.
        dropout: share of h that a forward of training drops.
        conv: is given phi(down(u)), u and where they are; None leaves it out, and one phi.
    """

    def __init__(
        self, width: int, rank: int, scale: float, dropout: float, conv: nn.Module | None
    ) -> None:
        super().__init__()
        self.down, self.conv, self.up = nn.Linear(width, rank), conv, nn.Linear(rank, width)
        self.dropout, self.scale = nn.Dropout(dropout), scale
        nn.init.xavier_uniform_(self.down.weight)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, y: Tensor, u: Tensor, tokens: Tokens) -> Tensor:
        """Add to the stream what the normed stream u gives: 2 x (B, N, d) -> (B, N, d)."""
        hidden = quick_gelu(self.down(u))
        if self.conv is not None:
            hidden = quick_gelu(self.conv(hidden, u, tokens))
        return y + self.scale * self.up(self.dropout(hidden))


class StaticConv(nn.Module):
    """A 3 x 3 convolution with a bias, r -> r channels; 9 r^2 + r parameters.

    Args:
        rank: r.
        init: `identity` (centre tap) or `xavier`; the bias starts at zero.
    """

    def __init__(self, rank: int, init: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rank, rank, 3, 3))
        self.bias = nn.Parameter(torch.zeros(rank))
        draw = {"identity": nn.init.dirac_, "xavier": nn.init.xavier_uniform_}[init]
        draw(self.weight)

    def forward(self, hidden: Tensor, u: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, r) -> (B, N, r)"""
        return convolved(hidden, self.weight[None], tokens) + self.bias


class GeneratedConv(nn.Module):
    """A convolution without bias, whose kernels a shared hypernetwork makes of codes.

    Args:
        hypernet: its name.
    """

    def __init__(self, hypernet: str) -> None:
        super().__init__()
        self.hypernet = hypernet

    def codes(self, cells: Tensor, shared: Any) -> Tensor:
        """(B, H W, d) -> (B, z), or (1, z) for all images alike"""
        raise NotImplementedError

    def forward(self, hidden: Tensor, u: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, r), (B, N, d) -> (B, N, r)"""
        shared: Any = tokens.shared
        codes = self.codes(u[:, tokens.prefix :], shared)
        return convolved(hidden, shared[self.hypernet](codes), tokens)


class InputIndependentConv(GeneratedConv):
    """By the same kernel for every image, made of a learned code e of z numbers.

    Args:
        hypernet: its name.
        embedding: z.
    """

    def __init__(self, hypernet: str, embedding: int) -> None:
        super().__init__(hypernet)
        self.code = nn.Parameter(torch.randn(embedding))

    def codes(self, cells: Tensor, shared: Any) -> Tensor:
        """Return e, (1, z)."""
        return self.code[None]


class InputAwareConv(GeneratedConv):
    """By a kernel for each image, made of its features under T soft masks (equations 6 to 8).

    Args:
        hypernet: its name.
        width: d, channels of the tokens.
        meta_width: hidden channels of the features' network.
        embedding: z, channels of the features.
    """

    def __init__(self, hypernet: str, width: int, meta_width: int, embedding: int) -> None:
        super().__init__(hypernet)
        self.meta = nn.Sequential(
            nn.Linear(width, meta_width), nn.ReLU(), nn.Linear(meta_width, embedding)
        )

    def codes(self, cells: Tensor, shared: Any) -> Tensor:
        """Sum over masks t of sum_p softmax_p(F_p . E_t) F_p: (B, H W, d) -> (B, z)"""
        features = self.meta(cells)
        masks = (shared["masks"].weight @ features.transpose(1, 2)).softmax(dim=-1)  # (B, T, H W)
        return (masks @ features).sum(1)


class Hypernet(nn.Module):
    """Kernels of 3 x 3 by two linear layers (Ha et al. 2017, arXiv:1609.09106).

    Args:
        embedding: z, numbers of a code.
        width: v, numbers of which the taps to one output channel are made.
        rank: r, channels that a kernel takes and gives.
    """

    def __init__(self, embedding: int, width: int, rank: int) -> None:
        super().__init__()
        self.rows, self.taps = nn.Linear(embedding, rank * width), nn.Linear(width, 9 * rank)
        for layer in (self.rows, self.taps):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, codes: Tensor) -> Tensor:
        """(G, z) -> (G, r output channels, r input channels, 3, 3)"""
        rows = self.rows(codes).unflatten(1, (-1, self.taps.in_features))
        return self.taps(rows).unflatten(2, (-1, 3, 3))


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), element by element"""
    return x * (1.702 * x).sigmoid()


def convolved(x: Tensor, kernels: Tensor, tokens: Tokens) -> Tensor:
    """Convolve each map with its kernel, padded by zeros; a prefix token is a map of one cell.

    One grouped convolution for all images: (B, P + H W, r), (B or 1, r, r, 3, 3) -> first shape
    """
    count, rank = kernels.shape[:2]
    prefix, cells = x[:, : tokens.prefix], x[:, tokens.prefix :]
    maps = cells.transpose(1, 2).reshape(-1, count * rank, *tokens.grid)
    maps = F.conv2d(maps, kernels.flatten(0, 1), padding=1, groups=count)
    cells = maps.reshape(*cells.transpose(1, 2).shape).transpose(1, 2)
    return joined(prefix @ kernels[..., 1, 1].transpose(1, 2), cells)

"""Multi-scale deformable attention (Zhu 2021, eq. 3) in plain torch.

Each query and head reads `levels * points` places; each place is a weighted sum of four cells. All
reads of a query and head are one bag of weighted rows: no map is sampled level by level, no
sampled value is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.position import Shape


class DeformableAttention(nn.Module):
    """Attention to a few learned places around a reference, on all levels at once."""

    def __init__(self, channels: int, heads: int, levels: int, points: int = 4):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Point the heads in all directions, points 1..P steps away; weigh them equally."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = direction[:, None, None] * steps[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        memory: Tensor,
        shapes: Sequence[Shape],
        padding: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C) queries, (B, N, L or 1, 2 or 4) references, (B, S, C) memory -> (B, N, C)

        A reference is a point (x, y), or a box (cx, cy, w, h) whose size scales the offsets.
        `padding` (B, S) is True where memory is not to be read.
        """
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0)
        value = value.unflatten(-1, (self.heads, -1))
        grid = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*grid, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1))
        weights = weights.softmax(-1).unflatten(-1, grid[1:])
        size = torch.tensor([(w, h) for h, w in shapes], device=query.device, dtype=value.dtype)
        places = (reference[..., :2] * size)[:, :, None, :, None] + offsets * self._step(
            reference, size
        )
        return self.output_proj(read(value, shapes, places, weights))

    def _step(self, reference: Tensor, size: Tensor) -> Tensor | float:
        """Cells that an offset of 1 moves. -> broadcasts with (B, N, heads, L, P, 2)"""
        if reference.shape[-1] == 2:
            return 1.0
        step = reference[..., 2:] * size * (0.5 / self.points)
        return step[:, :, None, :, None]


def read(value: Tensor, shapes: Sequence[Shape], places: Tensor, weights: Tensor) -> Tensor:
    """Sum weighted bilinear reads; outside of a level all is zero.

    (B, S, heads, D) values of all levels, (B, N, heads, L, P, 2) places (x, y) in cells of their
    level (the first cell spans 0 to 1), (B, N, heads, L, P) weights -> (B, N, heads * D)
    """
    batch, _, heads, dim = value.shape
    table = torch.cat([_framed(level, shape) for level, shape in _levels(value, shapes)], dim=1)
    rows, steps, shares = _corners(places, weights, shapes, table.shape[1])
    rows = (rows[..., None] + steps).flatten(3).flatten(0, 2)
    out = F.embedding_bag(
        rows, table.view(-1, dim), mode="sum", per_sample_weights=shares.flatten(3).flatten(0, 2)
    )
    return out.view(batch, -1, heads * dim)


def _levels(value: Tensor, shapes: Sequence[Shape]) -> list[tuple[Tensor, Shape]]:
    return list(zip(value.split([h * w for h, w in shapes], dim=1), shapes, strict=True))


def _framed(level: Tensor, shape: Shape) -> Tensor:
    """Put a frame of zero cells around a level. (B, h*w, ...) -> (B, (h+2)*(w+2), ...)"""
    return F.pad(level.unflatten(1, shape), (0, 0, 0, 0, 1, 1, 1, 1)).flatten(1, 2)


def _corners(
    places: Tensor, weights: Tensor, shapes: Sequence[Shape], tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the upper left cells, steps to the four cells, and the share of each.

    -> (B, N, heads, L, P) int32, (L, 1, 4) int32, (B, N, heads, L, P, 4)
    """
    batch, _, heads = places.shape[:3]
    device = places.device
    size = torch.tensor([(w, h) for h, w in shapes], device=device)
    width = size[:, :1].int() + 2
    first = (width * (size[:, 1:].int() + 2)).cumsum(0, dtype=torch.int32)
    first = first.roll(1, 0).index_fill_(0, torch.tensor(0, device=device), 0)
    # beyond the frame all is zero: the outermost place that is still read gives that too
    edge = size[:, None].to(places.dtype)
    places = torch.minimum((places + 0.5).clamp(min=0), edge + 1)
    corner = torch.minimum(places.detach().floor(), edge)
    right, down = (places - corner).unbind(-1)
    x, y = corner.int().unbind(-1)
    image = torch.arange(batch, device=device, dtype=torch.int32).view(-1, 1, 1, 1, 1)
    head = torch.arange(heads, device=device, dtype=torch.int32).view(-1, 1, 1)
    rows = (y * width + x + (first + image * tokens)) * heads + head
    steps = torch.cat((width * 0, width * 0 + 1, width, width + 1), dim=-1)[:, None] * heads
    below = weights * down
    above = weights - below
    below_right, above_right = below * right, above * right
    shares = (above - above_right, above_right, below - below_right, below_right)
    return rows, steps, torch.stack(shares, dim=-1)

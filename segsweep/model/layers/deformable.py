"""Multi-scale deformable attention (Zhu 2021, eq. 3) in plain torch.

Each query and head reads `levels * points` places; each place is a weighted sum of four cells. All
reads of a query and head are one bag of weighted rows: no map is sampled level by level, no
sampled value is ever stored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from segsweep.model.layers.position import Shape
from segsweep.model.torch_parts import grad_bag_shares


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
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(-1)
        offsets = self.sampling_offsets(query).unflatten(-1, (-1, 2)).movedim(-1, 0).contiguous()
        size = torch.tensor([(w, h) for h, w in shapes], dtype=query.dtype, device=query.device)
        x, y = (reference[..., :2] * size).unbind(-1)
        if reference.shape[-1] == 2:
            x, y = self._spread(x) + offsets[0], self._spread(y) + offsets[1]
        else:  # an offset of `points` reaches the side of the box
            w, h = (reference[..., 2:] * size * (0.5 / self.points)).unbind(-1)
            x = self._spread(x) + self._spread(w) * offsets[0]
            y = self._spread(y) + self._spread(h) * offsets[1]
        value = value.unflatten(-1, (self.heads, -1))
        return self.output_proj(read(value, shapes, x, y, weights.flatten(2)))

    def _spread(self, level: Tensor) -> Tensor:
        """Give each head and point the number of its level. (B, N, L) -> (B, N, heads * L * P)"""
        heads_points = level[:, :, None, :, None].expand(-1, -1, self.heads, -1, self.points)
        return heads_points.flatten(2)


def read(value: Tensor, shapes: Sequence[Shape], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Sum weighted bilinear reads; outside of a level all is zero.

    (B, S, heads, D) values of all levels; places x, y in cells of their level (its first cell
    spans 0 to 1) and weights, all (B, N, heads * L * P) -> (B, N, heads * D)
    """
    if value.is_cuda and (kernel := _kernel()):
        return kernel(value, shapes, x, y, weights)
    return cast(Tensor, _Read.apply(value, shapes, x, y, weights))


@cache
def _kernel() -> Callable[..., Tensor] | None:
    """Return the Triton kernel that does the same on a GPU, if SEGSWEEP_TRITON=1 asks for it."""
    if os.environ.get("SEGSWEEP_TRITON") != "1" or find_spec("triton") is None:
        return None
    return import_module("segsweep.model.layers.deformable_triton").read


class _Read(torch.autograd.Function):
    """Sum weighted rows of a table and their three neighbours, each corner as one embedding bag.

    Only values, places and weights are kept: rows and shares of the corners are four times as much,
    and made again in no time. torch's own gradient of a bag by its table sorts all reads, which is
    slow on a CPU. Here the upper left cells alone are sorted, and the gradient is four bags of
    output gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, shapes: Sequence[Shape], x: Tensor, y: Tensor, weights: Tensor
    ) -> Tensor:
        """See `read`."""
        ctx.shapes = shapes
        ctx.save_for_backward(value, x, y, weights)
        table = _table(value, shapes)
        rows, first, *others = _corners(table, shapes, x, y, weights)
        flat, (_, *steps) = table.view(-1, table.shape[-1]), _steps(shapes, rows)
        out = _sums(flat, rows, first)
        for step, share in zip(steps, others, strict=True):
            out += _sums(flat, rows + step, share)
        return out.view(len(value), -1, value.shape[2] * value.shape[3])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Lead the gradients of table and shares back to those of the inputs that want one."""
        needed = [ctx.needs_input_grad[i] for i in (0, 2, 3, 4)]
        saved = zip(ctx.saved_tensors, needed, strict=True)
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in saved]
        with torch.enable_grad():
            table = _table(inputs[0], ctx.shapes)
            rows, *shares = _corners(table, ctx.shapes, *inputs[1:])
        grad = grads[0].reshape(-1, table.shape[-1])
        made = {}
        if shares[0].requires_grad:
            made = dict(zip(shares, _grad_shares(grad, table, ctx.shapes, rows), strict=True))
        if table.requires_grad:
            made[table] = _grad_table(grad, table, ctx.shapes, rows, shares)
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(torch.autograd.grad(list(made), wanted, list(made.values())))
        value, x, y, weights = (next(found) if need else None for need in needed)
        return value, None, x, y, weights


def _table(value: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """Frame each level by zero cells: no read needs to ask whether it is inside.

    (B, S, heads, D) -> (B, heads, T, D)
    """
    levels = value.transpose(1, 2).split([h * w for h, w in shapes], dim=2)
    framed = [
        F.pad(level.unflatten(2, shape), (0, 0, 1, 1, 1, 1)).flatten(2, 3)
        for level, shape in zip(levels, shapes, strict=True)
    ]
    return torch.cat(framed, dim=2)


def _corners(
    table: Tensor, shapes: Sequence[Shape], x: Tensor, y: Tensor, weights: Tensor
) -> tuple[Tensor, ...]:
    """Upper left row of each read, and the shares of its four cells. -> 5 x (B*N*heads, L*P)"""
    batch, heads, tokens, _ = table.shape
    first, *size = _layout(shapes, heads, tokens, x.shape[-1], x.device)
    column, right = _cell(x, size[0])
    line, below = _cell(y, size[1])
    image = torch.arange(batch, device=x.device, dtype=torch.int32) * (heads * tokens)
    rows = line * (size[0] + 2) + column + (first + image[:, None])[:, None]
    lower = weights * below
    upper = weights - lower
    upper_right, lower_right = upper * right, lower * right
    corners = rows, upper - upper_right, upper_right, lower - lower_right, lower_right
    return tuple(corner.reshape(-1, x.shape[-1] // heads) for corner in corners)


def _layout(
    shapes: Sequence[Shape], heads: int, tokens: int, reads: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row of the first cell, width and height for each read of a query. -> 3 x (heads * L * P)"""
    cells = torch.tensor([(w, h) for h, w in shapes], dtype=torch.int32, device=device)
    area = (cells + 2).prod(1, dtype=torch.int32)
    start = area.cumsum(0, dtype=torch.int32) - area
    head = torch.arange(heads, dtype=torch.int32, device=device)[:, None] * tokens
    points = reads // (heads * len(shapes))
    columns = ((head + start), cells[:, 0].expand(heads, -1), cells[:, 1].expand(heads, -1))
    first, width, height = (c.repeat_interleave(points, dim=1).flatten() for c in columns)
    return first, width, height


def _cell(place: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Cell of the framed axis before a place, and how far the place is behind it in [0, 1].

    Far outside only the frame is read, which is what the outermost place gives.
    """
    place = torch.minimum((place + 0.5).relu(), size + 1)
    cell = torch.minimum(place.detach().int(), size)
    return cell, place - cell


def _sums(table: Tensor, rows: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


def _steps(shapes: Sequence[Shape], rows: Tensor) -> list[Tensor | int]:
    """Rows from the upper left cell to each of the four, for the reads of one bag."""
    width = torch.tensor([w + 2 for _, w in shapes], dtype=rows.dtype, device=rows.device)
    width = width.repeat_interleave(rows.shape[1] // len(shapes))
    return [0, 1, width, width + 1]


def _grad_shares(
    grad: Tensor, table: Tensor, shapes: Sequence[Shape], rows: Tensor
) -> list[Tensor]:
    """Gradients of the four shares: products of what was read and the gradient of its bag."""
    bags, reads = rows.shape
    flat, starts = table.detach().view(-1, table.shape[-1]), torch.arange(bags).to(rows)
    bag = starts.repeat_interleave(reads)
    return [
        grad_bag_shares(grad, flat, (rows + step).flatten(), starts * reads, bag, 0).view_as(rows)
        for step in _steps(shapes, rows)
    ]


@torch.no_grad()
def _grad_table(
    grad: Tensor, table: Tensor, shapes: Sequence[Shape], rows: Tensor, shares: list[Tensor]
) -> Tensor:
    """Gradient of the table: for each row, the weighted gradients of all that read it."""
    ordered, order = rows.flatten().sort(stable=True)
    every_row = torch.arange(table[..., 0].numel(), dtype=rows.dtype, device=rows.device)
    starts = torch.searchsorted(ordered, every_row)
    readers = torch.div(order, rows.shape[1], rounding_mode="trunc")
    upper_left, *others = (
        _sums(grad, readers, share.flatten().index_select(0, order), starts).view_as(table)
        for share in shares
    )
    start = 0
    for height, width in shapes:
        end = start + (height + 2) * (width + 2)
        for step, corner in zip((1, width + 2, width + 3), others, strict=True):
            upper_left[:, :, start + step : end] += corner[:, :, start : end - step]
        start = end
    return upper_left

"""`read` of deformable attention as a Triton kernel: no table, no shares, one pass over the reads.

Checked with Triton's interpreter on a CPU against the plain function; no GPU has run it so far, so
nothing uses it unless `SEGSWEEP_TRITON=1` says so. The gradient of the values is a sum in no fixed
order (atomic additions): two runs on one GPU may differ in their last bits.
"""

# Triton declares neither what its kernels take nor what their operations give
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from segsweep.model.layers.position import Shape

BAGS = 32  # of a program; a bag are the reads of one query and head


def read(value: Tensor, shapes: Sequence[Shape], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Do what `deformable.read` does, float32 or float64; see there for shapes and units."""
    tensors = (tensor.contiguous() for tensor in (value, x, y, weights))
    return cast(Tensor, _Read.apply(tuple(shapes), *tensors))


@lru_cache(maxsize=64)
def _levels(shapes: tuple[Shape, ...], device: torch.device) -> Tensor:
    """First token, height and width of each level. -> (L, 3) int32"""
    rows, start = [], 0
    for height, width in shapes:
        rows.append((start, height, width))
        start += height * width
    return torch.tensor(rows, dtype=torch.int32, device=device)


class _Read(torch.autograd.Function):
    """Sums of weighted bilinear reads; keeps its inputs alone for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, shapes: tuple[Shape, ...], value: Tensor, x: Tensor, y: Tensor, weights: Tensor
    ) -> Tensor:
        """(B, S, heads, D), 3 x (B, N, heads * L * P) -> (B, N, heads * D)"""
        ctx.shapes = shapes
        ctx.save_for_backward(value, x, y, weights)
        out = value.new_empty(*x.shape[:2], value.shape[2] * value.shape[3])
        grid, sizes = _grid(value, x, shapes)
        levels = _levels(shapes, value.device)
        _forward[grid](value, levels, x, y, weights, out, **sizes)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give gradients to values, places and weights."""
        value, x, y, weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        grad_value = torch.zeros_like(value) if wanted else value.new_empty(1)
        grad_x, grad_y, grad_weights = (torch.empty_like(x) for _ in range(3))
        grid, sizes = _grid(value, x, ctx.shapes)
        levels, out = _levels(ctx.shapes, value.device), (grad_value, grad_x, grad_y, grad_weights)
        grad = grads[0].contiguous()
        _backward[grid](value, levels, x, y, weights, grad, *out, WANTED=wanted, **sizes)
        return None, grad_value if wanted else None, grad_x, grad_y, grad_weights


def _grid(
    value: Tensor, x: Tensor, shapes: Sequence[Shape]
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return how many programs there are, and the sizes that the kernels are made for."""
    _, tokens, heads, dim = value.shape
    bags, reads = x.shape[0] * x.shape[1] * heads, x.shape[2] // heads
    sizes = {"bags": bags, "queries": x.shape[1], "tokens": tokens, "HEADS": heads, "DIM": dim}
    sizes |= {"READS": reads, "POINTS": reads // len(shapes), "BAGS": BAGS}
    return (triton.cdiv(bags, BAGS),), sizes | {"WIDE": triton.next_power_of_2(dim)}


@triton.jit
def _axis(at, side):
    """Cell before a place, how far the place is behind it, and whether it is not far outside."""
    place = at - 0.5
    inside = (place > -1.0) & (place < side)
    place = tl.minimum(tl.maximum(place, -1.0), side * 1.0)
    cell = tl.floor(place)
    return cell.to(tl.int32), place - cell, inside


@triton.jit
def _bags(bags, queries, tokens, HEADS: tl.constexpr, DIM: tl.constexpr, BAGS: tl.constexpr,
          WIDE: tl.constexpr):  # fmt: skip
    """Bags of a program and its channels, whether there are such, and where their images begin."""
    bag = tl.program_id(0) * BAGS + tl.arange(0, BAGS).to(tl.int64)
    channel = tl.arange(0, WIDE)[None, :]
    # (B, S, heads, D): where the first token of the bag's image and head lies
    image, head = bag // (HEADS * queries), bag % HEADS
    first = ((image * tokens * HEADS + head) * DIM)[:, None] + channel
    return bag, channel, bag < bags, channel < DIM, first


@triton.jit
def _forward(
    value, levels, x, y, weights, out, bags, queries, tokens,
    HEADS: tl.constexpr, DIM: tl.constexpr, READS: tl.constexpr, POINTS: tl.constexpr,
    BAGS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One bag in each of BAGS lines, its channels in WIDE columns."""
    bag, channel, there, wide, first = _bags(bags, queries, tokens, HEADS, DIM, BAGS, WIDE)
    total = tl.zeros((BAGS, WIDE), dtype=out.dtype.element_ty)
    for number in range(READS):
        level = levels + number // POINTS * 3
        start, height, width = tl.load(level), tl.load(level + 1), tl.load(level + 2)
        place = bag * READS + number
        share = tl.load(weights + place, there, 0.0)
        column, right, _ = _axis(tl.load(x + place, there, 0.0), width)
        line, below, _ = _axis(tl.load(y + place, there, 0.0), height)
        for corner in tl.static_range(4):
            i, j = line + corner // 2, column + corner % 2
            part = (below if corner // 2 else 1 - below) * (right if corner % 2 else 1 - right)
            inside = there & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            token = (start + i * width + j).to(tl.int64) * (HEADS * DIM)
            row = tl.load(value + first + token[:, None], inside[:, None] & wide, 0.0)
            total += (share * part)[:, None] * row
    tl.store(out + (bag * DIM)[:, None] + channel, total, there[:, None] & wide)


@triton.jit
def _backward(
    value, levels, x, y, weights, grad, grad_value, grad_x, grad_y, grad_weights,
    bags, queries, tokens, WANTED: tl.constexpr,
    HEADS: tl.constexpr, DIM: tl.constexpr, READS: tl.constexpr, POINTS: tl.constexpr,
    BAGS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The same lines and columns; values get their gradients where they are WANTED."""
    bag, channel, there, wide, first = _bags(bags, queries, tokens, HEADS, DIM, BAGS, WIDE)
    above = tl.load(grad + (bag * DIM)[:, None] + channel, there[:, None] & wide, 0.0)
    for number in range(READS):
        level = levels + number // POINTS * 3
        start, height, width = tl.load(level), tl.load(level + 1), tl.load(level + 2)
        place = bag * READS + number
        share = tl.load(weights + place, there, 0.0)
        column, right, moves_x = _axis(tl.load(x + place, there, 0.0), width)
        line, below, moves_y = _axis(tl.load(y + place, there, 0.0), height)
        by_share, by_x, by_y = share * 0, share * 0, share * 0
        for corner in tl.static_range(4):
            i, j = line + corner // 2, column + corner % 2
            tall = below if corner // 2 else 1 - below
            broad = right if corner % 2 else 1 - right
            inside = there & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            token = (start + i * width + j).to(tl.int64) * (HEADS * DIM)
            at, seen = first + token[:, None], inside[:, None] & wide
            dot = tl.sum(tl.load(value + at, seen, 0.0) * above, axis=1)
            by_share += tall * broad * dot
            by_x += tall * (dot if corner % 2 else -dot)
            by_y += broad * (dot if corner // 2 else -dot)
            if WANTED:
                part = (share * tall * broad)[:, None] * above
                tl.atomic_add(grad_value + at, part, seen, sem="relaxed")
        tl.store(grad_weights + place, by_share, there)
        tl.store(grad_x + place, tl.where(moves_x, share * by_x, 0.0), there)
        tl.store(grad_y + place, tl.where(moves_y, share * by_y, 0.0), there)

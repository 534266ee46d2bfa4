"""Where tokens and boxes are: cell centres, proposals, and the sine codes of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Shape = tuple[int, int]  # (height, width) of one level


def waves(angle: Tensor, features: int) -> Tensor:
    """Code an angle in sine and cosine of growing wave length. (...) -> (..., features)

    Even features are sines, odd ones cosines; temperature 10000 (Vaswani 2017).
    """
    pair = torch.arange(0, features, 2, device=angle.device, dtype=torch.float32) / features
    angle = angle[..., None] / 10000**pair
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def map_position(shape: Shape, channels: int, device: torch.device) -> Tensor:
    """Sine code of every cell of a map, rows first. -> (H*W, C)

    Row and column count from 1 and are scaled to (0, 2 pi] (Carion 2020, DETR).
    """
    rows, columns = (_axis(size, channels // 2, device) for size in shape)
    rows = rows[:, None].expand(-1, shape[1], -1)
    columns = columns[None].expand(shape[0], -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def _axis(size: int, features: int, device: torch.device) -> Tensor:
    index = torch.arange(1, size + 1, device=device, dtype=torch.float32)
    return waves(index / (size + 1e-6) * 2 * math.pi, features)


def padded_position(padding: Tensor, channels: int) -> Tensor:
    """Sine code that counts only cells without padding. (B, H, W) bool -> (B, H*W, C)

    Rows and columns are scaled by how many of them each image has (Carion 2020). Where nothing is
    padded, this is `map_position`.
    """
    codes = []
    for axis in (1, 2):
        count = (~padding).cumsum(axis, dtype=torch.float32)
        last = count.narrow(axis, -1, 1)
        codes.append(waves(count / (last + 1e-6) * 2 * math.pi, channels // 2))
    return torch.cat(codes, dim=-1).flatten(1, 2)


def box_position(boxes: Tensor, features: int) -> Tensor:
    """Sine code of boxes (..., cx cy w h) in the order cy, cx, w, h. -> (..., 4 * features)"""
    boxes = boxes[..., [1, 0, *range(2, boxes.shape[-1])]]
    return waves(boxes * 2 * math.pi, features).flatten(-2)


def cell_centres(
    shapes: Sequence[Shape], device: torch.device, valid: Tensor | None = None
) -> Tensor:
    """Centres (x, y) in [0, 1] of the cells of all levels. -> (N, 2)

    Given `valid` (B, L, 2), the width and height of what is not padding, they are in [0, 1] of
    that part of each image: (B, N, 2).
    """
    if valid is None:
        return torch.cat([_centres(shape, shape, device) for shape in shapes])
    sizes = valid.flip(-1).permute(1, 2, 0)[..., None]  # (L, 2, B, 1), height first as in shapes
    levels = zip(shapes, sizes, strict=True)
    return torch.cat([_centres(shape, size, device) for shape, size in levels], dim=1)


def _centres(shape: Shape, size: Iterable[int | Tensor], device: torch.device) -> Tensor:
    cells = (torch.arange(count, device=device) + 0.5 for count in shape)
    y, x = (cell / length for cell, length in zip(cells, size, strict=True))
    grid = torch.broadcast_tensors(x[..., None, :], y[..., None])
    return torch.stack(grid, dim=-1).flatten(-3, -2)


def valid_sizes(padding: Sequence[Tensor]) -> Tensor:
    """Width and height in cells of what is not padding, of masks (B, H_l, W_l). -> (B, L, 2)"""
    sizes = [torch.stack(((~m[:, 0]).sum(1), (~m[:, :, 0]).sum(1)), dim=-1) for m in padding]
    return torch.stack(sizes, dim=1)


def padded_references(shapes: Sequence[Shape], valid: Tensor) -> Tensor:
    """Place of each cell, in the part that is not padding, on every level. -> (B, N, L, 2)

    `valid` (B, L, 2) is the width and height of that part (Zhu 2021, the released program).
    """
    size = valid.new_tensor([(width, height) for height, width in shapes])
    return cell_centres(shapes, valid.device, valid)[:, :, None] * (valid / size)[:, None]


def proposals(
    shapes: Sequence[Shape], device: torch.device, padding: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """One box per token, unsigmoided, and which are usable. -> (N, 4), (N,) bool

    Level l of the sequence gets boxes of side 0.05 * 2**l (Zhu 2021, two-stage Deformable DETR).
    Boxes that do not lie strictly inside (0.01, 0.99) in all four values are infinite.
    Given `padding`, (B, H_l, W_l) bool per level, boxes are relative to what is not padding and
    its tokens are unusable: (B, N, 4), (B, N).
    """
    centre = cell_centres(shapes, device, None if padding is None else valid_sizes(padding))
    sides = [
        torch.full((h * w, 2), 0.05 * 2.0**i, device=device) for i, (h, w) in enumerate(shapes)
    ]
    boxes = torch.cat((centre, torch.cat(sides).expand_as(centre)), dim=-1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
    if padding is not None:
        usable &= ~flat(padding)
    return torch.log(boxes / (1 - boxes)).masked_fill(~usable[..., None], torch.inf), usable


def flat(padding: Sequence[Tensor]) -> Tensor:
    """Masks (B, H_l, W_l) of all levels as one of all tokens. -> (B, N)"""
    return torch.cat([level.flatten(1) for level in padding], dim=1)

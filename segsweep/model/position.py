"""Where tokens and boxes are: cell centres, proposals, and the sine codes of both."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def box_position(boxes: Tensor, features: int) -> Tensor:
    """Sine code of boxes (..., cx cy w h) in the order cy, cx, w, h. -> (..., 4 * features)"""
    boxes = boxes[..., [1, 0, *range(2, boxes.shape[-1])]]
    return waves(boxes * 2 * math.pi, features).flatten(-2)


def cell_centres(shapes: Sequence[Shape], device: torch.device) -> Tensor:
    """Centres (x, y) in [0, 1] of the cells of all levels. -> (N, 2)"""
    return torch.cat([_centres(shape, device) for shape in shapes])


def _centres(shape: Shape, device: torch.device) -> Tensor:
    y, x = ((torch.arange(size, device=device) + 0.5) / size for size in shape)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1)


def proposals(shapes: Sequence[Shape], device: torch.device) -> tuple[Tensor, Tensor]:
    """One box per token, unsigmoided, and which are usable. -> (N, 4), (N,) bool

    Level l of the sequence gets boxes of side 0.05 * 2**l (Zhu 2021, two-stage Deformable DETR).
    Boxes that do not lie strictly inside (0.01, 0.99) in all four values are infinite.
    """
    centre = cell_centres(shapes, device)
    sides = [
        torch.full((h * w, 2), 0.05 * 2.0**i, device=device) for i, (h, w) in enumerate(shapes)
    ]
    boxes = torch.cat((centre, torch.cat(sides)), dim=-1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
    return torch.log(boxes / (1 - boxes)).masked_fill(~usable[:, None], torch.inf), usable

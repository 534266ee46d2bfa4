"""Anchors of detectors that look at every cell: one square each, and boxes told as offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segsweep.loss.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

if TYPE_CHECKING:
    from segsweep.data.geometry import Size

SIDE = 8  # strides
DEVIATIONS = 0.1, 0.2  # of shifts and of growths: what a network of unit outputs would say
LARGEST = math.log(1000 / 16)  # growth, either way


def square_anchors(
    grids: Sequence[Size], strides: Sequence[float], device: torch.device | None = None
) -> list[Tensor]:
    """Put a square of 8 strides around the point (column, row) * stride of every cell.

    Grids (H_l, W_l) -> (H_l W_l, 4) x1 y1 x2 y2 in pixels, row by row. So mmdet centres them; in
    the first program of ATSS they stand half a stride further.
    """
    levels = []
    for (height, width), stride in zip(grids, strides, strict=True):
        rows, columns = (torch.arange(side, device=device) * stride for side in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres, half = torch.stack([x, y], dim=-1).flatten(0, 1).float(), SIDE * stride / 2
        levels.append(torch.cat([centres - half, centres + half], dim=-1))
    return levels


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Move and stretch anchors (Girshick 2014, appendix C). (..., 4) xyxy, (..., 4) -> (..., 4)

    Shifts are in sides of the anchor, growths logarithms of factors, bounded; both are scaled.
    """
    centre, size = xyxy_to_cxcywh(anchors).chunk(2, dim=-1)
    shift, growth = deltas.chunk(2, dim=-1)
    growth = (DEVIATIONS[1] * growth).clamp(-LARGEST, LARGEST)
    moved = centre + DEVIATIONS[0] * shift * size
    return cxcywh_to_xyxy(torch.cat([moved, size * growth.exp()], dim=-1))


def centrality(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Say how central a box has an anchor's centre (Tian 2019, equation 3). (..., 4) x 2 -> (...)

    1 in the middle, 0 at a side; the centre must lie inside.
    """
    centre = xyxy_to_cxcywh(anchors)[..., :2]
    before, behind = centre - boxes[..., :2], boxes[..., 2:] - centre
    return (torch.minimum(before, behind) / torch.maximum(before, behind)).prod(-1).sqrt()

"""Boxes: two forms, overlap, tight boxes of masks, and the inverse sigmoid they are refined in.

Boxes are (cx, cy, w, h) or (x1, y1, x2, y2) in the last dimension; every function broadcasts over
the leading ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 1e8  # x1 and y1 that `mask2box` gives to a mask without pixels


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn centre and size into corners. (..., 4) -> (..., 4)"""
    centre, size = boxes.chunk(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn corners into centre and size. (..., 4) -> (..., 4)"""
    low, high = boxes.chunk(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def iou(a: Tensor, b: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Intersection over union and the union of corner boxes. (..., 4), (..., 4) -> (...), (...)"""
    a_low, a_high = a[..., :2], a[..., 2:]
    b_low, b_high = b[..., :2], b[..., 2:]
    overlap = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0).prod(-1)
    union = (a_high - a_low).prod(-1) + (b_high - b_low).prod(-1) - overlap
    return overlap / (union + eps), union


def generalized_iou(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalized IoU of corner boxes (Rezatofighi 2019). (..., 4), (..., 4) -> (...) in [-1, 1]

    `eps` stands in both denominators, as in Mask DINO. Widths and heights must not be negative.
    """
    overlap, union = iou(a, b, eps)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).prod(-1)
    return overlap - (hull - union) / (hull + eps)


def mask2box(masks: Tensor) -> Tensor:
    """Tight boxes whose far corner is the last pixel itself. (..., H, W) bool -> (..., 4) xyxy

    Pixels, float32. A mask without pixels gives (1e8, 1e8, 0, 0). Mask DINO's `mask2box`.
    """
    pixels = masks.view(torch.uint8)  # the maximum of bytes is faster than `any` of booleans
    columns, rows = pixels.amax(-2).bool(), pixels.amax(-1).bool()
    (x1, x2), (y1, y2) = _extent(columns), _extent(rows)
    return torch.stack([x1, y1, x2, y2], dim=-1)


def bitmask(masks: Tensor) -> Tensor:
    """Tight boxes whose far corner is one past the last pixel. (..., H, W) bool -> (..., 4) xyxy

    Pixels, float32. A mask without pixels gives zeros. Mask DINO's `bitmask`, detectron2's rule.
    """
    boxes = mask2box(masks)
    boxes[..., 2:] += 1
    return boxes * (boxes[..., :1] < EMPTY)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true index of each line; (EMPTY, 0) where none is true. (..., N) -> (...)"""
    index = torch.arange(line.shape[-1], device=line.device, dtype=torch.float32)
    first = index.where(line, torch.full_like(index, EMPTY)).amin(-1)
    return first, (index * line).amax(-1)


def invsig(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Inverse sigmoid of x clamped to [0, 1], finite at both ends. (...) -> (...)"""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))

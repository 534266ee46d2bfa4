"""From the network's frame back to the picture's own pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.geometry import Size, View

Resize = Literal["bilinear", "bicubic"]
CELLS = 2**24  # mask cells that are resized at once


def to_original(
    logits: Tensor, size: Size, padded_size: Size, original: Size, resize: Resize
) -> Tensor:
    """Resize to the padded input, crop to the image, resize to the original.

    (B, M, h, w) -> (B, M, *original)
    """
    logits = F.interpolate(logits, padded_size, mode="bilinear", align_corners=False)
    logits, smooth = logits[..., : size[0], : size[1]], resize == "bicubic"
    return F.interpolate(logits, original, mode=resize, align_corners=False, antialias=smooth)


def strips(
    maps: Tensor, view: View, resize: Resize, room: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """Bring maps to the original size, some rows at a time: (M, h, w) -> rows, (M, n, W)

    `room` maps more are to find place beside those of a strip. Resizing is linear, so rows are made
    by a matrix, then their columns as ever.
    """
    (size, padded_size, original), height = view, maps.shape[1]
    unit = torch.eye(height, device=maps.device)[None, None]
    heights = (size[0], height), (padded_size[0], height), (original[0], height)
    rows = to_original(unit, *heights, resize)[0, 0]  # (H, h)
    step = max(1, CELLS // ((len(maps) + room) * original[1]))
    for top, strip in zip(range(0, original[0], step), rows.split(step), strict=True):
        used, n = strip.any(0), len(strip)
        few = torch.einsum("rh,mhw->mrw", strip[:, used], maps[:, used])[None]
        widths = (n, size[1]), (n, padded_size[1]), (n, original[1])
        yield slice(top, top + n), to_original(few, *widths, resize)[0]

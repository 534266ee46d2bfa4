"""From the network's frame back to the picture's own pixels."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from segsweep.data.geometry import Size

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

"""Where an image lies in the frame of the network, and what its masks are there.

Polygons are scaled first and rasterised in the frame of the sample, as the originals do: their
edges stay exact at any scale, and no mask of the full image is ever held. RLEs and label maps have
no edges but pixels; they are resized by nearest neighbour. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.data.base import DataSet, Record, Resample, Segmentation
from segsweep.data.resizing import Size

if TYPE_CHECKING:
    import numpy as np

DIVISOR = 32  # of the padded frame: the stride of the coarsest feature map
View = tuple[Size, Size, Size]  # an image as the network saw it, with padding, at original size


@dataclass(frozen=True)
class Geometry:
    """Maybe flip, resize to `resized`, then cut `size` at `offset`, padding what is missing."""

    resized: tuple[int, int]  # height, width
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)  # row, column
    flip: bool = False
    resample: Resample = Resample["bilinear"]  # of pixels, with antialias


def evaluation_geometry(data: DataSet, record: Record) -> Geometry:
    """Return the fixed resize of evaluation: an image as a whole, of `part` the middle."""
    way = data.transform.value
    resized = way.resized(data.size, (record.height, record.width))
    size = way.evaluated(data.size, resized)
    offset = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    return Geometry(resized, size, offset, resample=data.resample)


def rasterised(segmentation: Segmentation, record: Record, geometry: Geometry) -> np.ndarray:
    """Return an instance as the sample shows it. -> (*size) bool"""
    from segsweep.data.formats import masks

    if isinstance(segmentation, dict):
        whole = masks.to_mask(segmentation, (record.height, record.width))
        return nearest(whole, geometry)
    (top, left), (height, width) = geometry.offset, geometry.resized
    across, down = width / record.width, height / record.height
    scale = (-across if geometry.flip else across, down)
    shift = (width - left if geometry.flip else -left, -top)
    mask = masks.to_mask(masks.moved(segmentation, scale, shift), geometry.size)
    mask[max(height - top, 0) :] = False  # what an annotator drew beyond the image
    mask[:, max(width - left, 0) :] = False
    return mask


def nearest(whole: np.ndarray, geometry: Geometry, fill: int = 0) -> np.ndarray:
    """Take each pixel of a sample from the pixel of the image below its centre. (H, W) -> (*size)

    `fill` is the value of padding.
    """
    import numpy as np

    rows, columns = (
        (2 * np.arange(offset, min(offset + size, resized)) + 1) * original // (2 * resized)
        for offset, size, resized, original in zip(
            geometry.offset, geometry.size, geometry.resized, whole.shape, strict=True
        )
    )
    columns = whole.shape[1] - 1 - columns if geometry.flip else columns
    pixels = np.full(geometry.size, fill, whole.dtype)
    pixels[: len(rows), : len(columns)] = whole[:, columns][rows]  # faster than both at once
    return pixels

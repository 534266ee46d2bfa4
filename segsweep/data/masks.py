"""Segmentations of COCO files as masks and as run-length codes (RLE); numpy and hotcoco only.

hotcoco rasterises, encodes and decodes exactly as pycocotools does, column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import hotcoco

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import Segmentation

Size = tuple[int, int]  # height, width


def moved(
    polygons: Sequence[Sequence[float]], scale: tuple[float, float], shift: tuple[float, float]
) -> list[list[float]]:
    """Return polygons [x1, y1, ...] with coordinates times `scale` plus `shift`, both (x, y)."""
    return [
        [v * scale[i % 2] + shift[i % 2] for i, v in enumerate(polygon)] for polygon in polygons
    ]


def to_rle(segmentation: Segmentation, size: Size) -> dict[str, Any]:
    """Return any form of segmentation as one compressed RLE; the parts of one are united.

    Raises ValueError or TypeError for what cannot be an RLE of `size`.
    """
    if not isinstance(segmentation, dict):
        return hotcoco.mask.merge(hotcoco.mask.frPyObjects(segmentation, *size))
    counts = segmentation["counts"]
    if list(segmentation["size"]) != list(size):
        raise ValueError(f"its size {segmentation['size']} is not the image's {list(size)}")
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        raise ValueError(f"its runs fill {sum(counts)} pixels, the image has {size[0] * size[1]}")
    rle = hotcoco.mask.frPyObjects(segmentation, *size)
    hotcoco.mask.area(rle)  # reads the string, hence finds a broken one
    return rle


def to_mask(segmentation: Segmentation, size: Size) -> np.ndarray:
    """Return a segmentation as pixels. -> (H, W) bool"""
    return hotcoco.mask.decode(to_rle(segmentation, size)).astype(bool)


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Return the RLE of each mask, its counts as text that JSON can hold. (n, H, W) bool"""
    import numpy as np

    columns = np.asfortranarray(masks.transpose(1, 2, 0))
    codes = cast("list[dict[str, Any]]", hotcoco.mask.encode(columns))
    return [{**code, "counts": code["counts"].decode()} for code in codes]


def area(rle: dict[str, Any]) -> int:
    """Return the number of pixels of a mask."""
    return int(hotcoco.mask.area(rle))


def bbox(rle: dict[str, Any]) -> list[float]:
    """Return the tight box of a mask as [x, y, w, h]; zeros for a mask without pixels."""
    return [float(v) for v in hotcoco.mask.to_bbox(rle)]

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
    """Return the RLE of each mask, its counts as text that JSON can hold. (n, H, W) bool

    One by one: beside them there is never more than one mask, turned to columns.
    """
    codes = (cast("dict[str, Any]", hotcoco.mask.encode(mask)) for mask in masks)
    return [{**code, "counts": code["counts"].decode()} for code in codes]


def listed(segmentation: Segmentation) -> Any:
    """Return a segmentation that JSON can hold."""
    if not isinstance(segmentation, dict):
        return [list(polygon) for polygon in segmentation]
    counts = segmentation["counts"]
    counts = counts.decode() if isinstance(counts, bytes) else counts
    return {"size": list(segmentation["size"]), "counts": counts}


def filled(rle: dict[str, Any]) -> int:
    """Return how many pixels the runs of a compressed RLE fill, holes included.

    A run is coded in groups of five bits, low ones first, bit 32 of a byte tells that more follow;
    from the fourth on it is the difference to the run before the last (`rleToString` of the COCO
    API).
    """
    import numpy as np

    counts = rle["counts"]
    code = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8)
    code = code.astype(np.int64) - 48
    ends = np.flatnonzero(code < 32)
    if not ends.size:
        return 0
    code = code[: ends[-1] + 1]
    starts = np.r_[0, ends[:-1] + 1]
    group = np.arange(code.size) - np.repeat(starts, ends + 1 - starts)
    runs = np.add.reduceat((code & 31) << 5 * group, starts)
    negative = code[ends] & 16 > 0
    runs = np.where(negative, runs - (1 << 5 * (ends + 1 - starts)), runs)
    # runs 1, 3, 5 ... and 2, 4, 6 ... are sums of differences; the first of all stands alone
    odd, even = np.cumsum(runs[1::2]), np.r_[runs[:1], np.cumsum(runs[2::2])]
    return int(odd.sum() + even.sum())


def area(rle: dict[str, Any]) -> int:
    """Return the number of pixels of a mask."""
    return int(hotcoco.mask.area(rle))


def bbox(rle: dict[str, Any]) -> list[float]:
    """Return the tight box of a mask as [x, y, w, h]; zeros for a mask without pixels."""
    return [float(v) for v in hotcoco.mask.to_bbox(rle)]


def intersections(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> np.ndarray:
    """Return how many pixels each mask of `a` shares with each of `b`. (n, m) int"""
    import numpy as np

    # against a crowd, IoU is the share of the first mask that lies in the second
    shares = np.array(hotcoco.mask.iou(a, b, [True] * len(b))).reshape(len(a), len(b))
    return np.rint(shares * np.array([[area(rle)] for rle in a]).reshape(-1, 1)).astype(int)

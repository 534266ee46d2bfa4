"""Shapes of annotation programs as the polygons and run lengths of COCO files."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CORNERS = 64  # of a polygon in place of a circle

Points = Sequence[Sequence[float]]


def rectangle(points: Points) -> list[float]:
    """Return a polygon [x1, y1, ...] between two opposite corners."""
    (left, top), (right, bottom) = points
    return [left, top, right, top, right, bottom, left, bottom]


def circle(points: Points) -> list[float]:
    """Return a polygon [x1, y1, ...] around a centre through a second point."""
    (x, y), (right, bottom) = points
    radius = hypot(right - x, bottom - y)
    angles = [2 * pi * k / CORNERS for k in range(CORNERS)]
    return [v for angle in angles for v in (x + radius * cos(angle), y + radius * sin(angle))]


def runs(mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return the RLE of a mask that lies at `corner` (top, left) of a picture of a size (h, w).

    mask: (h, w) bool, of which nothing lies outside the picture and at least one pixel is set.
    """
    import numpy as np

    (top, left), (height, width) = corner, size
    xs, ys = np.nonzero(mask.T)  # column by column, as COCO counts
    places = (xs + left) * height + ys + top
    gaps = np.flatnonzero(np.diff(places) > 1)
    starts, ends = places[np.r_[0, gaps + 1]], places[np.r_[gaps, len(places) - 1]] + 1
    edges = np.r_[0, np.c_[starts, ends].ravel(), height * width]
    return {"size": [height, width], "counts": np.diff(edges).tolist()}

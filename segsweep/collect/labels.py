"""Places labels beside the points of a plot so that they cover neither points nor each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 7.0  # points
WIDTH, HEIGHT = 0.62 * FONT_SIZE, 1.1 * FONT_SIZE  # of one letter
MARKER = 3.5  # half the side of a marker's box
GAP = 5.0  # between the boxes that stand for a line

# Directions in the order in which they are tried: above, below, right, left, diagonals.
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (5.0, 9.0, 15.0)


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point (x, y) in data units."""

    x: float
    y: float
    text: str
    color: str


Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


def place(ax: Axes, labels: list[Label], lines: list[list[tuple[float, float]]]) -> None:
    """Write every label where it covers least; `lines` are the polylines to keep clear of.

    The axes must have their final limits and size.
    """
    from matplotlib.patheffects import withStroke

    taken = [box for line in lines for box in _boxes(_points(ax, line))]
    inside = _inside(ax)
    for label in labels:
        if not label.text:
            continue
        (anchor,) = _points(ax, [(label.x, label.y)])
        offset, box = min(
            (
                _candidate(anchor, direction, distance, label.text)
                for distance in DISTANCES
                for direction in DIRECTIONS
            ),
            key=lambda found: (
                sum(_overlap(found[1], other) for other in taken) + _outside(found[1], inside)
            ),
        )
        taken.append(box)
        ax.annotate(
            label.text,
            (label.x, label.y),
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            color=label.color,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            zorder=4,
        )


def _points(ax: Axes, data: list[tuple[float, float]]) -> np.ndarray:
    """Return data coordinates as typographic points on the page. (n, 2)"""
    return ax.transData.transform(np.asarray(data, float)) * 72 / ax.figure.dpi


def _inside(ax: Axes) -> Box:
    (left, bottom), (right, top) = ax.transAxes.transform([(0, 0), (1, 1)]) * 72 / ax.figure.dpi
    return left, bottom, right, top


def _boxes(line: np.ndarray) -> list[Box]:
    """Return small boxes along a polyline, those of its markers included."""
    between = [
        a + (b - a) * t
        for a, b in pairwise(line)
        for t in np.arange(0, 1, GAP / max(GAP, float(np.hypot(*(b - a)))))
    ]
    boxes = [(x - 1, y - 1, x + 1, y + 1) for x, y in between]
    return boxes + [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in line]


def _candidate(
    anchor: np.ndarray, direction: tuple[int, int], distance: float, text: str
) -> tuple[tuple[float, float], Box]:
    """Return a place of a text: its centre's offset from the point, and the box it fills."""
    half = WIDTH * len(text) / 2, HEIGHT / 2
    dx, dy = (d * (distance + h) for d, h in zip(direction, half, strict=True))
    x, y = anchor[0] + dx, anchor[1] + dy
    return (dx, dy), (x - half[0], y - half[1], x + half[0], y + half[1])


def _overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, inside: Box) -> float:
    """Return the area of a box that lies outside another."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, inside)

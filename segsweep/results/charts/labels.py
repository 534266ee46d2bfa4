"""Places labels beside the points of a plot so that they cover neither points nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from segsweep.results.wording import elided

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 7.0  # points
LONG = 36  # letters of a label
WIDTH, HEIGHT = 0.62 * FONT_SIZE, 1.1 * FONT_SIZE  # of one letter
MARKER = 3.5  # half the side of a marker's box
GAP = 2.5  # between the boxes that stand for a line

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


def place(
    ax: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]
) -> None:
    """Write every label where it covers least; `lines` are the polylines to keep clear of.

    The axes must have their final limits and size. Boxes are (left, bottom, right, top) in
    typographic points on the page.
    """
    from matplotlib.patheffects import withStroke

    inside = np.array(ax.bbox.extents) * 72 / ax.figure.dpi
    taken = np.concatenate([_boxes(_points(ax, line)) for line in lines])
    for label in labels:
        (anchor,) = _points(ax, [(label.x, label.y)])
        text = elided(label.text, LONG)
        offsets, boxes = _candidates(anchor, text)
        covered = _overlap(boxes[:, None], taken).sum(1) - _overlap(boxes, inside)
        best = int(covered.round(3).argmin())  # the first of equals
        taken = np.concatenate([taken, boxes[best : best + 1]])
        ax.annotate(
            text,
            (label.x, label.y),
            xytext=tuple(offsets[best]),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            color=label.color,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            zorder=4,
        )


def _points(ax: Axes, data: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return data coordinates as typographic points on the page. (n, 2)"""
    return ax.transData.transform(np.asarray(data, float)) * 72 / ax.figure.dpi


def _boxes(line: np.ndarray) -> np.ndarray:
    """Return small boxes along a polyline and larger ones for its markers. (n, 2) -> (m, 4)"""
    between = [
        a + (b - a) * np.arange(0, 1, GAP / max(GAP, float(np.hypot(*(b - a)))))[:, None]
        for a, b in pairwise(line)
    ]
    centres = np.concatenate([*between, line])
    half = np.where(np.arange(len(centres)) < len(centres) - len(line), 1.0, MARKER)[:, None]
    return np.hstack([centres - half, centres + half])


def _candidates(anchor: np.ndarray, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a text: offsets of its centre (n, 2), and the boxes it fills (n, 4)."""
    half = np.array([WIDTH * len(text), HEIGHT]) / 2
    offsets = np.array([np.array(d) * (half + gap) for gap in DISTANCES for d in DIRECTIONS])
    centres = anchor + offsets
    return offsets, np.hstack([centres - half, centres + half])


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the areas that boxes share. (..., 4), (..., 4) -> (...)"""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.clip(high - low, 0, None).prod(-1)

"""Scenes drawn from real handwritten digits, the same bytes on every machine.

A scene is a pure function of (domain, split, index, side, VERSION): the key of a Philox generator
is the SHA-256 of these words, every draw is `Generator.random()` (the top 53 bits of the counter
based stream), matrix products are of whole numbers, hence exact in any order, and all else is
single correctly rounded operations: nothing whose last bits depend on the processor.

The glyphs are the 8x8 images of `sklearn.datasets.load_digits` (Alpaydin & Kaynak 1998), enlarged
by cubic B-splines, so that their edges are smooth at any size. They are in the order of their
writers: the last fifth is drawn in val scenes only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution
from math import cos, pi, sin

import numpy as np

VERSION = 1  # raise it when any scene changes
FINE = 8  # samples per pixel of a glyph
INK = 6.5  # of 16: where the edge of a stroke lies
SEEN = 0.25  # of an instance must be visible, and
PIXELS = 12  # of a scene of 128x128, else it is not annotated

Colour = np.ndarray  # (3,) float 0..255


class Dice:
    """Random numbers of one scene, all taken from `Generator.random()`, whose stream is fixed."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self.generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16])))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""
        return low + (high - low) * self.generator.random()

    def integer(self, low: int, high: int) -> int:
        """Draw a whole number from low..high, both included."""
        return low + int((high - low + 1) * self.generator.random())

    def colour(self, low: Sequence[float], high: Sequence[float]) -> Colour:
        """Draw a colour between two corners of the RGB cube."""
        return np.array([self.uniform(a, b) for a, b in zip(low, high, strict=True)])

    def tone(self, low: float, high: float, tint: float) -> Colour:
        """Draw a grey level from low..high, tinted by up to `tint` in each channel."""
        level = self.uniform(low, high)
        return self.colour((level - tint,) * 3, (level + tint,) * 3)

    def noise(self, side: int, cells: int) -> np.ndarray:
        """Draw a smooth field with about `cells` bumps along a side. -> (side, side) in 0..1"""
        grid = np.floor(self.generator.random((cells + 3, cells + 3)) * 256)
        return spline(grid, side) / 255.0

    def grain(self, side: int) -> np.ndarray:
        """Draw an independent number for every pixel. -> (side, side) in -1..1"""
        return 2 * self.generator.random((side, side)) - 1


@lru_cache(maxsize=16)
def spline_weights(samples: int, knots: int) -> np.ndarray:
    """Return cubic B-spline weights in 1/1024 at `samples` even places. -> (samples, knots)"""
    place = (np.arange(samples) + 0.5) * (knots - 3) / samples + 1.0
    distance = np.abs(place[:, None] - np.arange(knots))
    near = 2 / 3 - distance * distance * (1 - distance / 2)
    beyond = np.maximum(2 - distance, 0)
    far = beyond * beyond * beyond / 6
    return np.rint(1024 * np.where(distance < 1, near, far))


def spline(grid: np.ndarray, samples: int) -> np.ndarray:
    """Enlarge a square of whole numbers (below 2^32) smoothly. (k, k) -> (samples, samples)"""
    weights = spline_weights(samples, grid.shape[0])
    return (weights @ grid @ weights.T) / float(1 << 20)


@lru_cache(maxsize=2)
def glyphs(split: str) -> list[list[np.ndarray]]:
    """Return the glyphs of a split, by digit. -> 10 lists of (8, 8), ink in 0..16

    The file is read without its library, whose import takes longer than drawing many scenes.
    """
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1]
    cut = len(labels) * 4 // 5
    part = slice(0, cut) if split == "train" else slice(cut, None)
    images = pixels[part].reshape(-1, 8, 8)
    return [list(images[labels[part] == digit]) for digit in range(10)]


@dataclass(frozen=True)
class Pose:
    """Where and how a thing stands: centre and height as parts of the side, angle in degrees."""

    x: float
    y: float
    height: float
    width: float = 0.8  # of the height
    angle: float = 0.0


@dataclass(frozen=True)
class Shape:
    """Coverage of the pixels in a window of the scene. `alpha` (h, w) in 0..1"""

    rows: slice
    columns: slice
    alpha: np.ndarray


class Canvas:
    """A scene in the making: its pixels, and which of them belong to which instance."""

    def __init__(self, side: int, dice: Dice, split: str) -> None:
        self.side = side
        self.dice = dice
        self.glyphs = glyphs(split)
        self.pixels = np.zeros((side, side, 3))
        self.labels: list[int] = []
        self.masks: list[np.ndarray] = []  # whole instances
        self.owner = np.full((side, side), -1)  # the topmost instance of each pixel

    def frame(self, pose: Pose) -> tuple[slice, slice, np.ndarray, np.ndarray]:
        """Return the window around a pose and its coordinates (u right, v down), in pixels."""
        reach = 0.8 * pose.height * max(1.0, pose.width) * self.side
        x, y = pose.x * self.side, pose.y * self.side
        rows = slice(max(int(y - reach), 0), min(max(int(y + reach) + 1, 0), self.side))
        columns = slice(max(int(x - reach), 0), min(max(int(x + reach) + 1, 0), self.side))
        down = np.arange(rows.start, rows.stop)[:, None] + 0.5 - y
        right = np.arange(columns.start, columns.stop)[None, :] + 0.5 - x
        turn = pose.angle * pi / 180
        c, s = (round(f(turn) * 4096) / 4096 for f in (cos, sin))  # the same on every machine
        return rows, columns, c * right + s * down, c * down - s * right

    def digit(self, digit: int, pose: Pose) -> Shape:
        """Return the strokes of somebody's handwritten digit, their edges about a pixel wide."""
        hands = self.glyphs[digit]
        field = spline(np.pad(hands[self.dice.integer(0, len(hands) - 1)], 2), 9 * FINE)
        rows, columns, u, v = self.frame(pose)
        size = pose.height * self.side  # of the 8 pixels of the glyph
        place_u = np.clip(u * (8 * FINE / (size * pose.width)) + 4.5 * FINE, 0.5, 9 * FINE - 1.5)
        place_v = np.clip(v * (8 * FINE / size) + 4.5 * FINE, 0.5, 9 * FINE - 1.5)
        i, j = place_v.astype(np.int64), place_u.astype(np.int64)
        a, b = place_v - i, place_u - j
        upper = field[i, j] * (1 - b) + field[i, j + 1] * b
        lower = field[i + 1, j] * (1 - b) + field[i + 1, j + 1] * b
        value = upper * (1 - a) + lower * a
        return Shape(rows, columns, np.clip((value - INK) * (size / 85) + 0.5, 0, 1))

    def slab(self, pose: Pose) -> Shape:
        """Return a rectangle."""
        rows, columns, u, v = self.frame(pose)
        half = pose.height * self.side / 2
        inside = np.minimum(half * pose.width - np.abs(u), half - np.abs(v))
        return Shape(rows, columns, np.clip(inside + 0.5, 0, 1))

    def paint(self, shape: Shape, colour: Colour, label: int | None) -> None:
        """Cover what is there with an opaque colour; without a label it is no instance."""
        window = self.pixels[shape.rows, shape.columns]
        window += shape.alpha[..., None] * (colour - window)
        self._own(shape, label)

    def stain(self, shape: Shape, passed: Colour, label: int | None) -> None:
        """Let only the part `passed` (0..1) of each colour through, as X-rays through things."""
        self.pixels[shape.rows, shape.columns] *= 1 - shape.alpha[..., None] * (1 - passed)
        if label is not None:
            self._own(shape, label)

    def _own(self, shape: Shape, label: int | None) -> None:
        inside = shape.alpha > 0.5
        self.owner[shape.rows, shape.columns][inside] = -1 if label is None else len(self.labels)
        if label is not None:
            mask = np.zeros((self.side, self.side), bool)
            mask[shape.rows, shape.columns] = inside
            self.labels.append(label)
            self.masks.append(mask)

    def instances(self, amodal: bool) -> tuple[list[int], np.ndarray]:
        """Return labels and masks of what can be seen. -> K labels, (K, side, side) bool"""
        minimum = PIXELS * (self.side / 128) ** 2
        masks, labels = [], []
        for k, (label, whole) in enumerate(zip(self.labels, self.masks, strict=True)):
            mask = whole if amodal else whole & (self.owner == k)
            if mask.sum() >= max(minimum, SEEN * whole.sum()):
                masks.append(mask)
                labels.append(label)
        return labels, np.array(masks, bool).reshape(-1, self.side, self.side)

    def on_top(self) -> np.ndarray:
        """Return the label of what is on top at each pixel, -1 where none is. -> (side, side)"""
        return np.array([*self.labels, -1], np.int8)[self.owner]

"""Scenes of class-free objects that cost no licence, to pretrain a base for photographs.

Shapes (blobs, polygons, stars, rings, bent strokes, unions of these) filled with surfaces (plain,
shaded, striped, dotted, grained, cut out of a photograph) cast shadows upon photographs and drawn
grounds, hide each other, and come alone, in few, or as crowds of one kind: everything that is drawn
as a thing of its own is an object, and none has a class. A scene is a function of (split, index,
side).

Photographs: china.jpg, flower.jpg of scikit-learn (CC BY 2.0: danielbuechele, vultilion on
flickr.com); brick, grass, gravel, camera, chelsea, coffee (CC0), astronaut, moon (NASA), rocket
(SpaceX, CC0) of scikit-image, where it is installed. Those of `HELD` are seen in val alone.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PACKAGES = {
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    "skimage": [
        *(f"data/{name}.png" for name in ("brick", "grass", "gravel", "camera", "chelsea")),
        *("data/coffee.png", "data/astronaut.png", "data/moon.png", "data/rocket.jpg"),
    ],
}
HELD = ("flower", "coffee", "grass", "rocket")
FINE = 3  # samples per pixel, both ways, of the edge of a shape
SEEN, PIXELS = 0.25, 10  # of an object must be visible, and of a scene of 128 x 128

Points = list[tuple[float, float]]


@lru_cache(maxsize=2)
def photographs(split: str) -> list[Image.Image]:
    """Return the photographs of a split."""
    found = []
    for package, names in PACKAGES.items():
        if (spec := find_spec(package)) and spec.origin:
            files = [Path(spec.origin).parent / name for name in names]
            found += [f for f in files if f.exists() and (f.stem in HELD) == (split == "val")]
    return [Image.open(file).convert("RGB") for file in found]


class Brush:
    """Draws surfaces, shapes and places of one scene by one generator."""

    def __init__(self, split: str, index: int) -> None:
        self.split = split
        self.dice = np.random.default_rng([split == "val", index])

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""
        return float(self.dice.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from low..high, both included."""
        return int(self.dice.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        """Say yes with probability p."""
        return bool(self.dice.random() < p)

    def noise(self, side: int, cells: int) -> np.ndarray:
        """Draw a smooth field with about `cells` bumps along a side. -> (side, side) in 0..1"""
        grid = self.dice.integers(0, 256, (cells + 1, cells + 1), dtype=np.uint8)
        return (
            np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)) / 255
        )

    def photograph(self, side: int) -> np.ndarray:
        """Cut a square out of a photograph. -> (side, side, 3) 0..255"""
        pictures = photographs(self.split)
        picture = pictures[self.whole(0, len(pictures) - 1)]
        cut = int(min(picture.size) * self.uniform(0.15, 1.0))
        x, y = (self.whole(0, extent - cut) for extent in picture.size)
        part = picture.resize((side, side), Image.Resampling.BILINEAR, (x, y, x + cut, y + cut))
        turned = np.rot90(np.asarray(part, float), self.whole(0, 3))
        return turned[:, ::-1] if self.chance(0.5) else turned

    def surface(self, side: int, photograph: float) -> np.ndarray:
        """Draw a square of some material. -> (side, side, 3) 0..255"""
        if self.chance(photograph):
            return self.photograph(side) * self.uniform(0.6, 1.2) + self.uniform(-30, 30)
        one = self.dice.uniform(0, 255, 3)
        other = one + self.dice.normal(0, 1, 3) * self.uniform(5, 70)
        place = np.arange(side) / side
        turn, waves = self.uniform(0, pi), self.uniform(2, 14)
        along = place * cos(turn) + (place * sin(turn))[:, None]
        kind = self.whole(0, 4)
        if kind == 0:  # plain, a little shaded
            mix = 0.3 * along
        elif kind == 1:
            mix = self.noise(side, self.whole(2, 12))
        elif kind == 2:
            mix = (np.sin(2 * pi * waves * along) > self.uniform(-0.5, 0.5)) * 1.0
        elif kind == 3:
            across = (place * cos(turn))[:, None] - place * sin(turn)
            dots = np.sin(2 * pi * waves * along) * np.sin(2 * pi * waves * across)
            mix = (dots > self.uniform(0.1, 0.6)) * 1.0
        else:
            mix = 0.5 * self.noise(side, self.whole(12, 40)) + 0.5 * self.dice.random((side, side))
        return one + np.broadcast_to(mix, (side, side))[..., None] * (other - one)

    def outline(self, family: int) -> Points:
        """Draw a closed line about the origin, of about unit radius."""
        corners = self.whole(3, 8)
        if family == 0:  # a smooth blob
            angle = np.linspace(0, 2 * pi, 64, endpoint=False)
            waves = [(k, self.uniform(0, 0.5 / k), self.uniform(0, 2 * pi)) for k in (2, 3, 4, 5)]
            radius = 0.8 + sum(a * np.cos(k * angle + phase) for k, a, phase in waves)
        elif family == 1:  # an ellipse up to a rectangle
            angle = np.linspace(0, 2 * pi, 64, endpoint=False)
            power = self.uniform(2, 8)
            radius = (abs(np.cos(angle)) ** power + abs(np.sin(angle)) ** power) ** (-1 / power)
        elif family == 2:  # a polygon
            angle = np.sort(self.dice.uniform(0, 2 * pi, corners))
            radius = self.dice.uniform(0.6, 1.1, corners)
        else:  # a star
            angle = np.linspace(0, 2 * pi, 2 * corners, endpoint=False)
            radius = np.tile([1.0, self.uniform(0.35, 0.75)], corners)
        return list(zip(radius * np.cos(angle), radius * np.sin(angle), strict=True))

    def shape(self, size: float, family: int) -> np.ndarray:
        """Draw a shape of about `size` pixels. -> coverage (h, h) in 0..1

        Families: blob, ellipse, polygon, star, ring, bent stroke, a union of two or three.
        """
        side = max(int(1.5 * size), 4) + 2
        canvas = Image.new("L", (side * FINE, side * FINE))
        pen = ImageDraw.Draw(canvas)
        turn, thin = self.uniform(0, 2 * pi), self.uniform(0.45, 1.0)
        middle, unit = side * FINE / 2, size * FINE / 2

        def placed(points: Points, dx: float = 0, dy: float = 0, scale: float = 1.0) -> Points:
            c, s = cos(turn) * unit * scale, sin(turn) * unit * scale
            x0, y0 = middle + dx * unit, middle + dy * unit
            return [(x0 + c * x - s * y * thin, y0 + s * x + c * y * thin) for x, y in points]

        if family == 4:
            outer, hole = self.outline(self.whole(0, 1)), self.uniform(0.35, 0.75)
            pen.polygon(placed(outer), fill=255)
            pen.polygon(placed(outer, scale=hole), fill=0)
        elif family == 5:
            ends = self.dice.uniform(-1, 1, (3, 2))
            ends[0], ends[2] = (-1, ends[0, 1] / 2), (1, ends[2, 1] / 2)
            t = np.linspace(0, 1, 24)[:, None]
            line = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
            width = max(FINE * 1.5, unit * self.uniform(0.06, 0.35))
            pen.line(placed([(x, y) for x, y in line]), 255, round(width), joint="curve")
        elif family == 6:
            for _ in range(self.whole(2, 3)):
                dx, dy = self.dice.uniform(-0.45, 0.45, 2)
                outline = self.outline(self.whole(0, 3))
                pen.polygon(placed(outline, dx, dy, self.uniform(0.3, 0.7)), fill=255)
        else:
            pen.polygon(placed(self.outline(family)), fill=255)
        return np.asarray(canvas.reduce(FINE), float) / 255


def blurred(field: np.ndarray, radius: float) -> np.ndarray:
    """Blur a field in 0..1."""
    image = Image.fromarray((255 * field).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), float) / 255


class Canvas:
    """A scene in the making: pixels, and which object is on top of each."""

    def __init__(self, side: int, brush: Brush) -> None:
        self.side, self.brush = side, brush
        self.pixels = brush.surface(side, photograph=0.6).copy()
        self.owner = np.zeros((side, side), int)  # 0 is the ground
        self.areas: list[int] = []

    def put(self, alpha: np.ndarray, surface: np.ndarray, x: float, y: float, depth: float) -> None:
        """Lay an object with its shadow upon the scene. (h, h), (h, h, 3), centre in pixels"""
        h = len(alpha)
        top, left = round(y - h / 2), round(x - h / 2)
        rows = slice(max(top, 0), max(min(top + h, self.side), 0))
        columns = slice(max(left, 0), max(min(left + h, self.side), 0))
        own = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        window = self.pixels[rows, columns]
        if depth > 0:
            cast = np.roll(
                blurred(alpha, 0.5 + 0.06 * h), (round(0.07 * h), round(0.05 * h)), (0, 1)
            )
            window *= 1 - depth * cast[own][..., None]
        window += alpha[own][..., None] * (surface[own] - window)
        inside = alpha > 0.5
        self.areas.append(int(inside.sum()))
        self.owner[rows, columns][inside[own]] = len(self.areas)

    def objects(self) -> np.ndarray:
        """Return the visible parts of the objects. -> (n, side, side) bool"""
        seen = np.bincount(self.owner.ravel(), minlength=len(self.areas) + 1)[1:]
        least = np.maximum(PIXELS * (self.side / 128) ** 2, SEEN * np.array(self.areas))
        return self.owner[None] == np.flatnonzero(seen >= least)[:, None, None] + 1


def few(canvas: Canvas, brush: Brush) -> None:
    """Lay one to eight unlike objects of all sizes."""
    for _ in range(brush.whole(1, 8)):
        size = canvas.side * 0.08 * 8 ** brush.uniform(0, 1)
        alpha = brush.shape(size, brush.whole(0, 6))
        surface = brush.surface(len(alpha), photograph=0.35)
        x, y = brush.dice.uniform(0.05, 0.95, 2) * canvas.side
        canvas.put(alpha, surface, x, y, brush.uniform(0, 0.6) if brush.chance(0.5) else 0)


def crowd(canvas: Canvas, brush: Brush) -> None:
    """Lay many small objects of one kind and alike in colour, apart or touching."""
    family, count = brush.whole(0, 6), brush.whole(8, 40)
    size = canvas.side * min(brush.uniform(0.05, 0.2), 1.1 / count**0.5)
    tone, rim = brush.dice.uniform(0, 255, 3), brush.uniform(-60, 60)
    spread, grain = brush.uniform(3, 25), brush.uniform(0, 20)
    depth = brush.uniform(0, 0.5) if brush.chance(0.3) else 0
    for _ in range(count):
        alpha = brush.shape(size * brush.uniform(0.6, 1.4), family)
        h = len(alpha)
        surface = tone + brush.dice.normal(0, spread, 3) + np.zeros((h, h, 1))
        surface = surface + (1 - blurred(alpha, 0.12 * h))[..., None] * rim
        surface = surface + grain * brush.dice.normal(0, 1, (h, h, 1))
        tries = brush.dice.uniform(0, canvas.side, (4, 2))
        free = [canvas.owner[int(y), int(x)] == 0 for x, y in tries]
        x, y = tries[int(np.argmax(free))]
        canvas.put(alpha, surface, x, y, depth)


def finished(pixels: np.ndarray, brush: Brush) -> np.ndarray:
    """Make it look taken by some camera: light, greys, blur, grain. -> uint8"""
    pixels = (pixels - 127) * brush.uniform(0.5, 1.2) + 127 + brush.uniform(-40, 40)
    if brush.chance(0.25):
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    pixels = pixels + brush.dice.normal(0, brush.uniform(0, 8), pixels.shape[:2])[..., None]
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if brush.chance(0.4):
        picture = picture.filter(ImageFilter.GaussianBlur(brush.uniform(0.3, 1.0)))
    return np.array(picture)


def draw(split: str, index: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene with one object at least. -> (side, side, 3) uint8, (n, side, side) bool"""
    brush = Brush(split, index)
    while True:
        canvas = Canvas(side, brush)
        for lay in ((few,), (crowd,), (crowd, few))[brush.whole(0, 2)]:
            lay(canvas, brush)
        if len(objects := canvas.objects()):
            return finished(canvas.pixels, brush), objects

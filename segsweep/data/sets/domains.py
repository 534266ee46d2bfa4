"""Six looks of the digit scenes: a ladder from what a base model has seen to what it has not.

A domain is a function that draws on a canvas, and the names of its classes. The small base model is
trained on `source`; the others echo the target data of the adapter studies: few animals in plain
water (clean), deformed waste on a belt (clutter), things seen through each other (xray), traffic in
perspective (street), faint things in heavy grain (sonar).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from segsweep.data.sets.scenes import VERSION, Canvas, Dice, Pose

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FAMILIES = ["loop", "bar", "bow", "fork"]  # of strokes, the classes of clutter
FAMILY = [0, 1, 2, 2, 3, 2, 0, 1, 0, 0]  # of each digit


def spread(dice: Dice, count: int, edge: float = 0.12) -> list[tuple[float, float]]:
    """Draw centres that keep apart: each is the loneliest of five (Mitchell's best candidate)."""
    centres: list[tuple[float, float]] = []

    def solitude(centre: tuple[float, float]) -> float:
        return min(((centre[0] - x) ** 2 + (centre[1] - y) ** 2 for x, y in centres), default=0.0)

    for _ in range(count):
        tries = [(dice.uniform(edge, 1 - edge), dice.uniform(edge, 1 - edge)) for _ in range(5)]
        centres.append(max(tries, key=solitude))
    return centres


def source(canvas: Canvas, dice: Dice) -> None:
    """Draw light strokes on a dark, smooth background."""
    dark = dice.colour((8, 8, 8), (50, 50, 50))
    glow = dice.colour((10, 10, 10), (60, 60, 60))
    canvas.pixels[:] = dark + dice.noise(canvas.side, dice.integer(2, 6))[..., None] * glow
    for x, y in spread(dice, dice.integer(3, 8)):
        digit = dice.integer(0, 9)
        pose = Pose(x, y, dice.uniform(0.2, 0.4), dice.uniform(0.7, 0.95), dice.uniform(-20, 20))
        canvas.paint(canvas.digit(digit, pose), dice.tone(150, 240, tint=18), digit)


def clean(canvas: Canvas, dice: Dice) -> None:
    """Draw one to four large pale digits in deep water."""
    top, bottom = (
        dice.colour((20, 110, 130), (60, 160, 180)),
        dice.colour((0, 40, 60), (20, 80, 110)),
    )
    depth = (np.arange(canvas.side) / canvas.side)[:, None, None]
    waves = dice.noise(canvas.side, 4)[..., None]
    canvas.pixels[:] = top + depth * (bottom - top) + 25 * (waves - 0.5)
    for x, y in spread(dice, dice.integer(1, 4), edge=0.22):
        pose = Pose(x, y, dice.uniform(0.35, 0.6), dice.uniform(0.7, 1.0), dice.uniform(-60, 60))
        digit = dice.integer(0, 9)
        shape = canvas.digit(digit, pose)
        canvas.paint(shape, dice.colour((90, 110, 110), (150, 160, 165)), digit)


PAPER = np.array([1.06, 1.0, 0.88])  # brownish


def clutter(canvas: Canvas, dice: Dice) -> None:
    """Draw digits among slabs, all in the colours of paper, that hide parts of each other."""
    belt = dice.tone(90, 125, tint=8)
    canvas.pixels[:] = belt + 50 * (dice.noise(canvas.side, 14)[..., None] - 0.5)
    for x, y in spread(dice, dice.integer(14, 20), edge=0.05):
        colour = dice.tone(80, 210, tint=12) * PAPER
        turn = dice.uniform(-90, 90)
        if dice.uniform(0, 1) < 0.5:
            pose = Pose(x, y, dice.uniform(0.08, 0.3), dice.uniform(0.2, 1.0), turn)
            canvas.paint(canvas.slab(pose), colour, None)
        else:
            digit = dice.integer(0, 9)
            pose = Pose(x, y, dice.uniform(0.2, 0.42), dice.uniform(0.6, 1.1), turn / 2)
            canvas.paint(canvas.digit(digit, pose), colour, digit)


MATERIALS = (  # what passes of red, green, blue: organic, mixed, metal
    ((0.85, 0.50, 0.15), (0.97, 0.68, 0.35)),
    ((0.35, 0.65, 0.30), (0.55, 0.82, 0.50)),
    ((0.15, 0.30, 0.65), (0.35, 0.50, 0.85)),
)


def xray(canvas: Canvas, dice: Dice) -> None:
    """Draw coloured, transparent digits over each other on white, as a luggage scanner does."""
    canvas.pixels[:] = 250.0
    for _ in range(dice.integer(1, 3)):  # thin things that nobody asked for
        x, y, height = dice.uniform(0, 1), dice.uniform(0, 1), dice.uniform(0.3, 0.8)
        pose = Pose(x, y, height, dice.uniform(0.3, 1), dice.uniform(-90, 90))
        canvas.stain(canvas.slab(pose), dice.colour((0.8, 0.8, 0.75), (0.95, 0.95, 0.95)), None)
    for _ in range(dice.integer(4, 9)):
        digit, material = dice.integer(0, 9), MATERIALS[dice.integer(0, 2)]
        x, y = dice.uniform(0.15, 0.85), dice.uniform(0.15, 0.85)
        pose = Pose(x, y, dice.uniform(0.22, 0.45), dice.uniform(0.7, 1.0), dice.uniform(-35, 35))
        canvas.stain(canvas.digit(digit, pose), dice.colour(*material), digit)


def street(canvas: Canvas, dice: Dice) -> None:
    """Draw digits that stand on a road, the nearer the larger and the lower, before houses."""
    side, horizon = canvas.side, dice.uniform(0.3, 0.42)
    row = ((np.arange(side) + 0.5) / side)[:, None, None]
    sky, road = dice.colour((150, 165, 175), (205, 215, 230)), dice.tone(65, 100, tint=5)
    canvas.pixels[:] = np.where(row < horizon - 0.01, sky, road + 30 * (row - horizon))
    x = 0.0
    while x < 1:  # houses, their feet on the horizon
        width, height = dice.uniform(0.1, 0.25), dice.uniform(0.1, 0.3)
        pose = Pose(x + width / 2, horizon - height / 2, height, width / height)
        canvas.paint(canvas.slab(pose), dice.tone(70, 150, tint=20), None)
        x += width
    feet = sorted(
        horizon + 0.08 + 0.55 * dice.uniform(0, 1) ** 2 for _ in range(dice.integer(5, 11))
    )
    for foot in feet:
        digit = dice.integer(0, 7)
        height = 0.06 + 0.75 * (foot - horizon)
        lean, colour = dice.uniform(-10, 10), dice.colour((20, 20, 20), (235, 220, 210))
        pose = Pose(dice.uniform(0.05, 0.95), foot - height / 2, height, dice.uniform(0.7, 1), lean)
        canvas.paint(canvas.digit(digit, pose), colour, digit)
    canvas.pixels += 6 * dice.grain(side)[..., None]


def sonar(canvas: Canvas, dice: Dice) -> None:
    """Draw digits a little lighter or darker than the sea floor, all in heavy grain."""
    side = canvas.side
    floor = dice.tone(105, 145, tint=10)
    canvas.pixels[:] = floor + 50 * (dice.noise(side, 5)[..., None] - 0.5)
    for x, y in spread(dice, dice.integer(5, 9)):
        digit, step = dice.integer(0, 9), dice.uniform(30, 50)
        sign = 1 if dice.uniform(0, 1) < 0.5 else -1
        pose = Pose(x, y, dice.uniform(0.25, 0.45), dice.uniform(0.7, 0.95), dice.uniform(-15, 15))
        canvas.paint(canvas.digit(digit, pose), floor + sign * step, digit)
    canvas.pixels += 70 * dice.grain(side)[..., None]


@dataclass(frozen=True)
class Domain:
    """How scenes look, what their instances are called, and the class of each digit."""

    draw: Callable[[Canvas, Dice], None]
    classes: list[str]
    category: Sequence[int] = range(10)
    amodal: bool = False  # masks show whole instances and may overlap


DOMAINS = {
    "source": Domain(source, DIGITS),
    "clean": Domain(clean, ["digit"], [0] * 10),
    "clutter": Domain(clutter, FAMILIES, FAMILY),
    "xray": Domain(xray, DIGITS, amodal=True),
    "street": Domain(street, DIGITS[:8], range(8)),
    "sonar": Domain(sonar, DIGITS),
}


@dataclass(frozen=True)
class Scene:
    """One drawn image. `image` (side, side, 3) uint8; `masks` (K, side, side) bool

    `labels` are the classes of the K instances; `digits` (side, side) int8 is the digit that is on
    top at each pixel, be it a large part of an instance or a small one, -1 where there is none.
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray
    digits: np.ndarray


@lru_cache(maxsize=256)  # about 50 MB, and more than a default run has
def scene(name: str, split: str, index: int, side: int) -> Scene:
    """Draw scene `index` of a split in the domain of this name."""
    domain, dice = DOMAINS[name], Dice("digits", VERSION, name, split, index, side)
    canvas = Canvas(side, dice, split)
    domain.draw(canvas, dice)
    digits, masks = canvas.instances(domain.amodal)
    image = np.clip(np.rint(canvas.pixels), 0, 255).astype(np.uint8)
    return Scene(image, [domain.category[digit] for digit in digits], masks, canvas.on_top())

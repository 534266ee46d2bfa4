"""Tiny sets in the layouts of Cityscapes and of ADE20K instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
ROAD, SKY, STATIC = 7, 23, 4
STREET = {  # number: box (rows, columns), painted in this order
    STATIC: (slice(40, 48), slice(0, 64)),
    24001: (slice(2, 10), slice(2, 10)),  # hidden by the next one
    24000: (slice(0, 20), slice(0, 20)),
    26000: (slice(20, 40), slice(0, 30)),
    26001: (slice(24, 36), slice(25, 60)),
    24: (slice(0, 20), slice(40, 60)),  # a group of persons
    29000: (slice(0, 10), slice(25, 35)),  # a caravan
    33000: (slice(12, 16), slice(25, 30)),  # a bicycle of 20 pixels
}
ROOM = {  # number: (class, box)
    1: (8, (slice(0, 30), slice(0, 30))),
    3: (6, (slice(20, 40), slice(20, 60))),
    255: (100, (slice(0, 5), slice(50, 60))),
}


def street() -> np.ndarray:
    """Numbers of objects, 16 bits. (H, W)"""
    numbers = np.full((HEIGHT, WIDTH), ROAD, np.uint16)
    for number, box in STREET.items():
        numbers[box] = number
    return numbers


def room() -> np.ndarray:
    """Class and number in red and green. (H, W, 3)"""
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, (category, box) in ROOM.items():
        values[box] = (category, number, 0)
    return values


def cityscapes(root: Path) -> Path:
    """Write two pictures of train, from two cities, and one of val."""
    for split, stem in (
        ("train", "aachen_000000_000019"),
        ("train", "bochum_000000_000313"),
        ("val", "lindau_000001_000019"),
    ):
        city = stem.partition("_")[0]
        picture = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        save(picture, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        save(numbers_file(root, stem, split), street())
        save(numbers_file(root, stem, split, "color"), np.zeros((HEIGHT, WIDTH, 4), np.uint8))
    return root


def numbers_file(root: Path, stem: str, split: str, kind: str = "instanceIds") -> Path:
    """Where Cityscapes has the annotation of a picture."""
    return root / "gtFine" / split / stem.partition("_")[0] / f"{stem}_gtFine_{kind}.png"


def ade20k_instance(root: Path) -> Path:
    """Write one picture of each split."""
    archive = root / "ADEChallengeData2016"
    for folder, name in (("training", "train"), ("validation", "val")):
        stem = f"ADE_{name}_00000001"
        save(archive / "images" / folder / f"{stem}.jpg", room())
        save(archive / "annotations_instance" / folder / f"{stem}.png", room())
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

"""Tiny fakes of the semantic sets in their publishers' layouts, with the label maps they mean.

Each function fills a folder and returns the label map of every picture by its key. The traps of
the real archives are in them: suffixes in upper case, masks in JPEG, superpixels, palettes, copies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segsweep.data.base import BACKGROUND, IGNORE

HEIGHT, WIDTH = 24, 40
Maps = dict[str, np.ndarray]


def thing(number: int) -> np.ndarray:
    """Return where a thing is that differs from picture to picture. (H, W) bool"""
    there = np.zeros((HEIGHT, WIDTH), bool)
    there[3 + number % 7 : 20, 5 + number % 11 : 31] = True
    return there


def binary(number: int) -> np.ndarray:
    """Return the label map of a thing. (H, W) uint8"""
    return np.where(thing(number), 0, BACKGROUND).astype(np.uint8)


def picture(path: Path, number: int) -> None:
    """Write a photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)


def mask(path: Path, values: np.ndarray, mode: str = "L", **options: Any) -> None:
    """Write a mask of 8-bit values in one of Pillow's modes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(path, **options)


def palette(path: Path, values: np.ndarray) -> None:
    """Write a palette image whose colours say nothing of its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette([(37 * k) % 256 for k in range(768)])
    image.save(path)


def kvasir(root: Path) -> Maps:
    """Masks in JPEG of three channels; one suffix in upper case, files of macOS, boxes."""
    base, maps = root / "Kvasir-SEG", {}
    for number in range(6):
        name = f"cju{number}.{'JPG' if number == 2 else 'jpg'}"
        picture(base / "images" / name, number)
        mask(base / "masks" / name, thing(number) * 255, "RGB", format="JPEG", quality=60)
        maps[f"images/{name}"] = binary(number)
    for folder in ("images", "masks"):
        (base / folder / "._cju0.jpg").write_bytes(b"\0\5\x16\7")
    (base / "kavsir_bboxes.json").write_text("{}")
    return maps


def cvc612(root: Path, kind: str = "tif") -> Maps:
    """Frames of four sequences, in TIFF or PNG; masks of 8 bits or in colours."""
    base, maps = root / "CVC-ClinicDB" / ("PNG" if kind == "png" else ""), {}
    for frame in (*range(20, 32), *range(199, 212)):
        picture(base / "Original" / f"{frame}.{kind}", frame)
        mask(base / "Ground Truth" / f"{frame}.{kind}", thing(frame) * 255, "RGB")
        maps[f"{frame}"] = binary(frame)
    return maps


def isic2017(root: Path) -> Maps:
    """Superpixels among the pictures; two spellings of the masks' names."""
    maps = {}
    for part, first in (("Training", 0), ("Validation", 3), ("Test_v2", 5)):
        for number in range(first, first + 2):
            data, truth = (f"ISIC-2017_{part}_{what}" for what in ("Data", "Part1_GroundTruth"))
            picture(root / data / f"ISIC_{number:07}.jpg", number)
            mask(root / data / f"ISIC_{number:07}_superpixels.png", thing(number) * 9, "RGB")
            spelling = "Segmentation" if part == "Test_v2" else "segmentation"
            mask(root / truth / f"ISIC_{number:07}_{spelling}.png", thing(number) * 255)
            maps[f"{data}/ISIC_{number:07}.jpg"] = binary(number)
    return maps


def camo(root: Path) -> Maps:
    """One folder of masks for both parts, not purely 0 and 255."""
    base, maps = root / "CAMO-V.1.0-CVIU2019", {}
    for number in range(5):
        key = f"Images/{'Test' if number > 2 else 'Train'}/camourflage_{number:05}.jpg"
        picture(base / key, number)
        values = np.where(thing(number), 250, 4)
        values[0, :3] = (60, 100, 127)
        mask(base / "GT" / f"camourflage_{number:05}.png", values)
        maps[key] = binary(number)
    return maps


def sbu(root: Path) -> Maps:
    """The archive's two folders; masks of one bit."""
    maps = {}
    for folder, first in (("SBUTrain4KRecoveredSmall", 0), ("SBU-Test", 4)):
        for number in range(first, first + 3):
            base = root / "SBU-shadow" / folder
            picture(base / "ShadowImages" / f"lssd{number}.jpg", number)
            mask(base / "ShadowMasks" / f"lssd{number}.png", thing(number) * 255, "1")
            maps[f"{folder}/ShadowImages/lssd{number}.jpg"] = binary(number)
    return maps


def leaf(root: Path) -> Maps:
    """Masks of one dark colour, or of 0 and 1; augmented copies beside the set."""
    maps = {}
    for number in range(8):
        picture(root / "data/data/images" / f"{number:05}.jpg", number)
        there = thing(number)
        colour = there[..., None] * np.array([70, 0, 0])
        mask(root / "data/data/masks" / f"{number:05}.png", there if number % 2 else colour)
        maps[f"images/{number:05}.jpg"] = binary(number)
        for copy in range(2):
            picture(root / "aug_data/aug_data/images" / f"{number:05}_{copy}.jpg", number)
            mask(root / "aug_data/aug_data/masks" / f"{number:05}_{copy}.png", there)
    return maps


def road(root: Path) -> Maps:
    """Pictures .tiff and maps .tif."""
    maps = {}
    for part, first in (("train", 0), ("valid", 3), ("test", 4)):
        for number in range(first, first + (1 if part == "valid" else 3)):
            picture(root / part / "sat" / f"1{number}_15.tiff", number)
            mask(root / part / "map" / f"1{number}_15.tif", thing(number) * 255)
            maps[f"{part}/sat/1{number}_15.tiff"] = binary(number)
    return maps


def trans10k(root: Path) -> Maps:
    """Palette masks named *_mask, in several modes; one picture of train has none."""
    maps = {}
    for part, first in (("train", 0), ("validation", 4), ("test", 6)):
        for number in range(first, first + (3 if part == "train" else 2)):
            base = root / "Trans10K_v2" / part
            picture(base / "images" / f"{number}.jpg", number)
            values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 12 * thing(number)
            palette(base / "masks_12" / f"{number}_mask.png", values)
            maps[f"{part}/images/{number}.jpg"] = np.where(values, values - 1, BACKGROUND)
    picture(root / "Trans10K_v2/train/images/lonely.jpg", 9)
    return maps


def ade20k(root: Path) -> Maps:
    """Values 0 (other) and 1 to 150."""
    base, maps = root / "ADEChallengeData2016", {}
    for part, short, count in (("training", "train", 3), ("validation", "val", 2)):
        for number in range(count):
            name = f"ADE_{short}_{number:08}"
            picture(base / "images" / part / f"{name}.jpg", number)
            values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + number) % 151
            mask(base / "annotations" / part / f"{name}.png", values)
            maps[f"images/{part}/{name}.jpg"] = np.where(values, values - 1, IGNORE)
    return maps


def packed(root: Path, lists: dict[str, list[int]]) -> Maps:
    """An archive of CSV files as the Conv-LoRA study packs them, with a mark of bytes."""
    maps = {}
    for name, numbers in lists.items():
        lines = ["image,label"]
        for number in numbers:
            picture(root / f"images/{number}.JPG", number)
            mask(root / f"masks/{number}.png", thing(number) * 255)
            lines.append(f"images/{number}.JPG,masks\\{number}.png")
            maps[f"images/{number}.JPG"] = binary(number)
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n", "utf-8-sig")
    return maps


LAYOUTS: dict[str, Callable[[Path], Maps]] = {
    function.__name__: function
    for function in (kvasir, cvc612, isic2017, camo, sbu, leaf, road, trans10k, ade20k)
}

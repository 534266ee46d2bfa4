"""Image files as the network wants them: three channels of eight bits, upright.

    file --decoded--> values as stored --eight_bits--> (H, W, 3) uint8

Values of more than eight bits are scaled by one range for a whole set (`common_levels`), so that
the same value has the same brightness in each of its pictures.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segsweep.base.errors import UserError

ORIENTATION = 0x0112  # EXIF tag
UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, EOFError),
    *(struct.error, Image.DecompressionBombError),
)
"""What Pillow raises for broken files, and for those larger than memory."""
DEPTHS = (255, 4095, 16383, 65535)  # of 8, 12, 14 and 16 bits; cameras store 12 and 14 in 16
STRIP = 256  # rows that are converted at once
SAMPLE = 512  # pictures of a set that its levels are decided from
SIXTEEN = re.compile(r"(RGB[AX]?|LA);16[BLN]")  # Pillow's codes for colours of 16 bits
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
UNDO = {6: 8, 8: 6}  # orientations; the others are their own opposites


@dataclass(frozen=True)
class Levels:
    """Which values are black and white, as decided from so many pictures of more than 8 bits."""

    black: float
    white: float
    pictures: int = 1


def read_image(
    path: Path, size: tuple[int, int] | None = None, levels: Levels | None = None
) -> np.ndarray:
    """Read an image file that is (height, width) pixels large, if that is known. -> (H, W, 3) uint8

    Grey, palette, CMYK and deeper files become RGB, alpha is dropped. `levels` are those of the
    set; without, a deep picture is scaled by its own. An EXIF orientation is followed unless only
    the stored pixels have the annotated size. Raises UserError for a file that is missing, broken
    or of another size.
    """
    try:
        values, orientation = decoded(path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    upright = turned(values, orientation)
    is_stored = size == values.shape[:2] != upright.shape[:2]
    pixels = eight_bits(values if is_stored else upright, levels)
    if size and pixels.shape[:2] != size:
        raise UserError(
            f"{path}: the file has {pixels.shape[1]}x{pixels.shape[0]} pixels, "
            f"its annotations are for {size[1]}x{size[0]}; they do not belong together"
        )
    return pixels


def sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) of a picture as stored and as shown; only its head is read.

    Raises UserError for a file that is missing or broken.
    """
    try:
        with Image.open(path) as file:
            return frames(file)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def frames(file: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) of an opened picture as stored and as shown."""
    orientation, (width, height) = orientation_of(file), file.size
    if file.format == "TIFF":  # of which Pillow tells the shown size
        width, height = file.tag_v2[256], file.tag_v2[257]  # pyright: ignore[reportAttributeAccessIssue]
    return (height, width), (width, height) if orientation >= 5 else (height, width)


def orientation_of(file: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1 to 8; 1 is as it is stored."""
    orientation = file.getexif().get(ORIENTATION)
    return orientation if isinstance(orientation, int) and 1 < orientation <= 8 else 1


def unreadable(path: Path, error: Exception) -> UserError:
    """Return what to tell of a file that Pillow failed to read with one of UNREADABLE."""
    with open(path, "rb") if path.is_file() else open(os.devnull, "rb") as head:
        pointer = head.read(40).startswith(b"version https://git-lfs")
    cure = "it is a Git LFS pointer: run `git lfs pull`" if pointer else "replace the file"
    unknown = isinstance(error, UnidentifiedImageError)  # whose text, as that of the system, has
    reason = "no known format" if unknown else getattr(error, "strerror", None) or error  # the path
    return UserError(f"{path}: cannot be read as an image ({reason}); {cure}")


def decoded(path: Path) -> tuple[np.ndarray, int]:
    """Return the values of a file as it stores them, and its EXIF orientation.

    -> (H, W, 3) uint8, or of more bits (H, W) or (H, W, 3) of their own kind. Of several pages it
    is the first. Raises one of UNREADABLE.
    """
    with Image.open(path) as file:
        code = two_bytes(file)
        orientation = orientation_of(file)
        values = np.asarray(file) if is_deep(file) or code else colours(file)
        transposed = file.format == "TIFF"  # by Pillow, while it loads
    if code:
        values = values[..., :3].astype(np.uint16) << 8 | low_bytes(path, code)
    return turned(values, UNDO.get(orientation, orientation)) if transposed else values, orientation


def colours(file: Image.Image) -> np.ndarray:
    """Return an opened picture of 8 bits as RGB, by strips: Pillow copies whole ones three times.

    -> (H, W, 3) uint8
    """
    file.load()
    pixels = np.empty((file.height, file.width, 3), np.uint8)
    for top in range(0, file.height, STRIP):
        box = (0, top, file.width, min(top + STRIP, file.height))
        pixels[top : box[3]] = np.asarray(file.crop(box).convert("RGB"))
    return pixels


def is_deep(file: Image.Image) -> bool:
    """Tell whether an opened picture is grey of more than 8 bits."""
    return file.mode.startswith(("I", "F"))


def two_bytes(file: Image.Image) -> str:
    """Return Pillow's code for the values of an opened picture if they are colours of 16 bits.

    To be asked before the picture is loaded. Raises ValueError for a layout that Pillow misreads.
    """
    tags = getattr(file, "tag_v2", {})
    if tags.get(284) == 2 and max(tags.get(258, (8,))) > 8 and not is_deep(file):
        raise ValueError("colours of 16 bits in separate planes; store them pixel by pixel")
    tiles = getattr(file, "tile", None)
    arguments = (tiles[0][3] if tiles else None) or ""
    code = arguments if isinstance(arguments, str) else str(arguments[0])
    return code if SIXTEEN.fullmatch(code) else ""


def low_bytes(path: Path, code: str) -> np.ndarray:
    """Return the low byte of each value of a picture of 16-bit colours. (H, W, 3 or 1) uint8

    Pillow keeps the high one of two bytes: the low one is what it keeps if the order is the other.
    Grey with alpha has no other order, but its four bytes can be read as four colours.
    """
    alpha = code.startswith("LA")
    other = "RGBA" if alpha else code[:-1] + OTHER_ORDER[code[-1]]
    with Image.open(path) as file:
        for number, tile in enumerate(file.tile):
            codec, extents, offset, arguments = tile
            changed = (other, *arguments[1:]) if isinstance(arguments, tuple) else other
            file.tile[number] = type(tile)(codec, extents, offset, changed)
        values = np.asarray(file)
    return values[..., 1:2] if alpha else values[..., :3]


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return a picture as its EXIF orientation shows it. (H, W, ...)"""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def eight_bits(values: np.ndarray, levels: Levels | None = None) -> np.ndarray:
    """Return values of any depth as a picture; what is no number is black. -> (H, W, 3) uint8"""
    if values.dtype != np.uint8:
        levels = levels or levels_of([values]) or Levels(0, 255)
        pixels = np.empty(values.shape, np.uint8)
        for top in range(0, len(values), STRIP):  # floats are larger than what comes of them
            strip = values[top : top + STRIP].astype(np.float64) - levels.black
            strip = np.nan_to_num(strip * (255 / (levels.white - levels.black)), nan=0)
            pixels[top : top + STRIP] = np.rint(strip.clip(0, 255))
        values = pixels
    values = values if values.ndim == 3 else np.repeat(values[..., None], 3, 2)
    return np.require(values, requirements=["C", "W"])  # a copy of what is turned or read-only


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of any mode, scaled by its own levels. -> (H, W, 3) uint8"""
    return eight_bits(np.asarray(image if is_deep(image) else image.convert("RGB")))


def levels_of(pictures: Iterable[np.ndarray]) -> Levels | None:
    """Return the levels that values of more than 8 bits need, None where there are no numbers.

    Whole numbers run from 0 to the depth that their maximum needs (8, 12, 14 or 16 bits), fractions
    from 0 to 1. Where some are below 0, the least and the largest of all are black and white.
    """
    low, high, fractions, number = np.inf, -np.inf, False, 0
    for values in pictures:
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            fractions, number = fractions or values.dtype.kind == "f", number + 1
    if not number:
        return None
    if low < 0:
        return Levels(low, max(high, low + 1e-6), number)
    if fractions and high <= 2:  # a little above 1 after an interpolation
        return Levels(0.0, max(high, 1.0), number)
    return Levels(0.0, float(next((depth for depth in DEPTHS if high <= depth), high)), number)


def common_levels(paths: Iterable[Path]) -> Levels | None:
    """Return the levels of a set: those of SAMPLE of its pictures that are evenly spaced.

    JPEG files are passed over, which have 8 bits. Warns of pictures with several pages. What
    cannot be read is told where it is used.
    """
    every = sorted({path for path in paths if path.suffix.lower() not in (".jpg", ".jpeg")})
    chosen = every[:: -(-len(every) // SAMPLE)] if every else []
    several = []

    def deep() -> Iterator[np.ndarray]:
        for path in chosen:
            with suppress(*UNREADABLE), Image.open(path) as file:
                if pages(file) > 1:
                    several.append(path)
                if is_deep(file) or two_bytes(file):
                    yield decoded(path)[0]

    levels = levels_of(deep())
    if several:
        warnings.warn(
            f"{several[0]}: has several pages, the first is used (as of {len(several)} of "
            f"{len(chosen)} pictures looked at)",
            stacklevel=2,
        )
    return levels


def pages(file: Image.Image) -> int:
    """Return how many pictures an opened file holds; previews of cameras are none."""
    return 1 if file.format == "MPO" else getattr(file, "n_frames", 1)

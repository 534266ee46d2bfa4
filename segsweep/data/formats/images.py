"""Image files as the network wants them: three channels of eight bits, upright."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segsweep.base.errors import UserError

ORIENTATION = 0x0112  # EXIF tag
# what Pillow raises for broken files, and for those larger than memory
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def listing(folder: Path) -> dict[str, str]:
    """Return the files below a folder, found in one scan: each path, and each name that is unique.

    Keys are relative paths with forward slashes and bare file names, values are relative paths.
    """
    paths = [
        Path(where, name).relative_to(folder).as_posix()
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    by_name: dict[str, str] = {}
    for path in paths:
        name = path.rpartition("/")[2]
        by_name[name] = "" if name in by_name else path  # no bare name for two files
    return {name: path for name, path in by_name.items() if path} | {path: path for path in paths}


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file that is (height, width) pixels large, if that is known. -> (H, W, 3) uint8

    Grey, palette, CMYK and 16-bit files become RGB, alpha is dropped. An EXIF orientation is
    followed unless only the stored pixels have the annotated size. Raises UserError for a file that
    is missing, broken or of another size.
    """
    try:
        with Image.open(path) as file:
            file.load()
            upright = ImageOps.exif_transpose(file)
            image = file if size and file.size == size[::-1] != upright.size else upright
            pixels = to_rgb(image)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
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
            (width, height), orientation = file.size, file.getexif().get(ORIENTATION, 1)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return (height, width), (width, height) if orientation >= 5 else (height, width)


def unreadable(path: Path, error: Exception) -> UserError:
    """Return what to tell of a file that Pillow failed to read with one of UNREADABLE."""
    with open(path, "rb") if path.is_file() else open(os.devnull, "rb") as head:
        pointer = head.read(40).startswith(b"version https://git-lfs")
    cure = "it is a Git LFS pointer: run `git lfs pull`" if pointer else "replace the file"
    return UserError(f"{path}: cannot be read as an image ({error}); {cure}")


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of any mode. -> (H, W, 3) uint8

    Pillow would clip deep greys at 255; they are scaled by the depth that their maximum needs
    (8, 12 or 16 bits), since 12-bit pixels are commonly stored in 16.
    """
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    full = next((depth for depth in (255, 4095, 65535) if top <= depth), top)
    grey = np.rint(values.clip(min=0) * (255 / full)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)

"""Pictures and their masks: which belong together, and what the values of a mask mean.

    folders or a CSV --pair, table--> items --binary, indexed--> label maps

Masks come in every mode: palette, grey of 1, 8 or 16 bits, RGB, and JPEG with its rims of grey.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND
from segsweep.data.formats.images import UNREADABLE, sizes, to_rgb, unreadable
from segsweep.data.items import Content, Item, pictures
from segsweep.data.splits import few

THRESHOLD = 127  # of masks with grey rims


def by_stem(*folders: Path, suffix: str = "", without: str | None = None) -> dict[str, Path]:
    """Return the image files of folders by stem, in order.

    `suffix` ends the stems of those that are meant, and is cut off ("_mask"); stems that end in
    `without` are left out; both whatever their case. So are hidden files, among them the "._" ones
    of macOS. Raises UserError for folders without any, and for equal stems.
    """
    files: dict[str, Path] = {}
    for path in (path for folder in folders for path in pictures(folder)):
        whole = path.stem.lower()
        if not whole.endswith(suffix) or (without and whole.endswith(without)):
            continue
        stem = path.stem[: len(whole) - len(suffix)]
        if stem in files:
            raise UserError(f"{files[stem]} and {path.name}: two files of one name; remove one")
        files[stem] = path
    if not files:
        raise UserError(f"{folders[0]}: holds no pictures" + (f" *{suffix}.*" if suffix else ""))
    return files


def pair(
    root: Path, images: Mapping[str, Path], masks: Mapping[str, Path], *, skip: bool = False
) -> list[Item]:
    """Return the pictures with their masks, matched by stem; keys are paths below `root`.

    Halves without the other half are an error that names them; with `skip` they are left out,
    with a warning that counts them.
    """
    halves = [f"{images[stem]} has no mask" for stem in images if stem not in masks]
    halves += [f"{masks[stem]} has no picture" for stem in masks if stem not in images]
    if halves:
        message = f"{root}: {few(halves)}, without the other half"
        if not skip or len(halves) == len(images) + len(masks):
            raise UserError(f"{message}; complete the archive, or move them elsewhere")
        warnings.warn(f"{message}; left out", stacklevel=2)
    return [
        Item(path.relative_to(root).as_posix(), path, masks[stem])
        for stem, path in images.items()
        if stem in masks
    ]


def table(path: Path) -> list[Item]:
    """Return the pairs of a CSV file with columns image and label, paths relative to its folder.

    Columns are named in any case and parted by commas, semicolons or tabs. Raises UserError for
    missing columns, files that do not exist and pictures named twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            parted = max(",;\t", key=head.count)
            names = [name.strip().casefold() for name in next(csv.reader([head], delimiter=parted))]
            rows = list(csv.DictReader(file, names, delimiter=parted))
    except (OSError, UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows or not {"image", "label"} <= {*names}:
        raise UserError(
            f"{path}: must have lines below a first one that names image and label; it names "
            f"{', '.join(names) or 'nothing'}, and {len(rows)} lines follow"
        )
    pairs = [
        [(row[c] or "").strip().replace("\\", "/") for c in ("image", "label")] for row in rows
    ]
    missing = [name for pair in pairs for name in pair if not (path.parent / name).is_file()]
    if missing:
        raise UserError(f"{path}: {few(missing)} of its files are not in {path.parent}")
    twice = [name for name, count in Counter(image for image, _ in pairs).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {few(twice)} of its pictures are named more than once")
    return [Item(image, path.parent / image, path.parent / mask) for image, mask in pairs]


def binary(path: Path) -> tuple[np.ndarray, int]:
    """Read a mask of one thing. -> (H, W) uint8 of 0 and BACKGROUND; number of grey pixels

    A mask of two values, the lower 0, says by them what it means (0/1, 0/255, 0 and a colour); any
    other is parted at half of white, which JPEG needs. Raises UserError for one without a pixel
    above: its scale cannot be told.
    """
    values = to_rgb(opened(path)).max(axis=2)
    counts = np.bincount(values.ravel(), minlength=256)
    values_used = np.flatnonzero(counts)
    if len(values_used) <= 2 and (len(values_used) == 1 or values_used[0] == 0):
        return np.where(values > 0, 0, BACKGROUND).astype(np.uint8), 0
    if values_used[-1] <= THRESHOLD:
        raise UserError(
            f"{path}: a mask of 0 and 255, or of 0 and one other value, is needed; "
            f"this has {len(values_used)} values, none above {values_used[-1]}"
        )
    grey = int(values.size - counts[0] - counts[255])
    return np.where(values > THRESHOLD, 0, BACKGROUND).astype(np.uint8), grey


def indexed(path: Path, classes: Mapping[int, int]) -> np.ndarray:
    """Read a mask whose values are class numbers, a palette's indices. -> (H, W) uint8

    `classes` gives each value's place in a label map. Raises UserError for other values.
    """
    mask = opened(path)
    values = np.asarray(mask)
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.ndim == 3:  # grey stored as colours has equal channels
        colours = values[..., :3] if values.shape[2] > 2 else values[..., :1]
        values = colours[..., 0]
        if (colours != values[..., None]).any():
            raise UserError(f"{path}: holds colours ({mask.mode}), not class numbers; convert them")
    if values.dtype.kind not in "ui":
        raise UserError(f"{path}: holds {mask.mode} values, not class numbers")
    quick = values.dtype == np.uint8  # to count is much faster than to sort
    used = np.flatnonzero(np.bincount(values.ravel())) if quick else np.unique(values)
    values_used = used.tolist()
    unknown = [value for value in values_used if value not in classes]
    if unknown:
        share = np.isin(values, unknown).mean()
        known = f"{min(classes)} to {max(classes)}" if len(classes) > 12 else sorted(classes)
        raise UserError(
            f"{path}: values {unknown[:8]} ({100 * share:.2g} % of the pixels) are no classes; "
            f"known are {known}"
        )
    places = np.zeros(values_used[-1] + 1, np.uint8)
    places[values_used] = [classes[value] for value in values_used]
    return places[values.astype(np.int64)]


def palette(path: Path) -> dict[int, str]:
    """Return the colours by which a mask shows the values that it uses, none without a palette."""
    mask = opened(path)
    if mask.mode != "P":
        return {}
    colours = bytes(mask.getpalette("RGB") or ())
    values = np.flatnonzero(np.bincount(np.asarray(mask).ravel())).tolist()
    return {v: f"#{colours[3 * v : 3 * v + 3].hex()}" for v in values if 3 * v < len(colours)}


def opened(path: Path) -> Image.Image:
    """Return an image, read. Raises UserError for a file that is missing, broken or a pointer."""
    try:
        with Image.open(path) as file:
            file.load()
            return file
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def numbered(image: Path, mask: Path, classes: Mapping[int, int]) -> Content:
    """Return the content of a picture whose mask holds class numbers; see `indexed`."""
    return replace(fitted(image, mask, indexed(mask, classes)), colours=palette(mask))


def fitted(image: Path, mask: Path, labels: np.ndarray, **counts: int) -> Content:
    """Return the content of a picture and the label map of its mask, which must be of one size.

    Raises UserError where they are not, whether the picture is shown upright or as it is stored.
    """
    stored, upright = sizes(image)
    if labels.shape not in (stored, upright):
        raise UserError(
            f"{mask}: the mask has {labels.shape[1]}x{labels.shape[0]} pixels, its picture "
            f"{image.name} {stored[1]}x{stored[0]}; they do not belong together"
        )
    height, width = labels.shape
    return Content((height, width), labels=labels, counts=counts)

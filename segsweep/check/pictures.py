"""Look at every picture and every mask of a part, in threads; little is kept of each."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
from PIL import Image, ImageOps

from segsweep.base.errors import UserError
from segsweep.check.parts import Part
from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record
from segsweep.data.formats import masks
from segsweep.data.formats.images import (
    UNREADABLE,
    Levels,
    frames,
    is_deep,
    orientation_of,
    pages,
    two_bytes,
)
from segsweep.data.geometry import evaluation_geometry, rasterised
from segsweep.data.kinds import KINDS

TWIN = 0.95  # IoU of two masks of a class from which on they are one object
CROWDED = 1000  # objects: above this many, pairs are not compared
FLAT = 1.0  # standard deviation of grey levels below which a picture has one colour
OFF = 0.1  # relative error of an area that is worth a note, if it is more than SOME pixels
SOME = 16
MANY = 1 << 20  # pixels are enough for a mean
EDGE = 256  # values that tell an edge of a picture; of less than half as many pixels none is kept


@dataclass
class Look:
    """What one picture and its masks tell; `defects` are (code, id, detail)."""

    record: Record
    defects: list[tuple[str, Any, str]] = field(default_factory=list)
    digest: bytes = b""
    dhash: int | None = None  # None for pictures of one colour
    small: np.ndarray | None = None  # (16, 16) uint8 grey
    edges: np.ndarray | None = None  # (4, EDGE) uint8 grey: top, bottom, left, right
    mean: np.ndarray | None = None  # (3,) of pixels
    square: np.ndarray | None = None  # (3,) of squared pixels
    objects: list[tuple[int, int]] = field(default_factory=list)  # class, pixels; no crowds
    overlap: float = 0.0  # part of the object pixels that belong to several objects
    pixels: np.ndarray | None = None  # of each class of a label map, then background, ignored

    @property
    def usable(self) -> bool:
        """Whether the picture can be trained on."""
        return not any(KINDS[code].drops for code, _, _ in self.defects)

    def add(self, code: str, identity: Any = None, detail: str = "") -> None:
        """Note a defect of the picture, or of the object named."""
        self.defects.append((code, self.record.file if identity is None else identity, detail))


def look_at_all(part: Part, classes: int, workers: int | None = None) -> Iterator[Look]:
    """Yield what each record tells, in their order; no more than a few pictures are in memory."""
    if part.records:
        with warnings.catch_warnings(action="ignore"):  # what it warns of is told of each picture
            _ = part.data.levels  # of the whole set, before threads ask for it
    threads = workers or min(os.cpu_count() or 1, 16)
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for record in part.records:
            waiting.append(pool.submit(look, part, record, classes))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def look(part: Part, record: Record, classes: int) -> Look:
    """Look at one picture and its masks."""
    result = Look(record)
    path = part.data.picture(record)
    if path is not None and not head(path, result, part.data.levels):
        return result
    try:
        pixels = part.data.image(record)
    except (UserError, MemoryError) as error:
        result.add(
            "picture-broken", detail=f"{record.file}: {str(error).removeprefix(f'{path}: ')}"
        )
        return result
    with_pixels(result, pixels, path)
    if record.labels is not None:
        labels(part, result, classes)
    else:
        instances(result, part.data)
    return result


def head(path: Path, look: Look, levels: Levels | None) -> bool:
    """Look at the head of a file; tell whether its pixels are worth decoding."""
    record = look.record
    try:
        with Image.open(path) as file:
            deep = is_deep(file) or bool(two_bytes(file))  # before anything loads it
            turn, (stored, upright), several = orientation_of(file), frames(file), pages(file)
            kind, clear = file.format or "", transparent(file)
            broken = file.mode == "F" and not np.isfinite(np.asarray(file)).all()
    except UNREADABLE as error:
        pointer = path.is_file() and path.read_bytes()[:40].startswith(b"version https://git-lfs")
        why = "is a Git LFS pointer: run `git lfs pull`" if pointer else str(error)
        look.add("picture-broken", detail=f"{record.file}: {why}")
        return False
    if turn != 1:
        look.add("picture-turned", detail=f"{record.file} (orientation {turn})")
    if (record.height, record.width) not in (stored, upright):
        message = f"{record.file} has {stored[1]}x{stored[0]} pixels, its annotations are for"
        look.add("picture-size", detail=f"{message} {record.width}x{record.height}")
        return False
    if several > 1:
        look.add("picture-pages", detail=f"{record.file} ({several})")
    if deep and levels:
        scale = f"{levels.black:g} is black, {levels.white:g} white"
        look.add("picture-deep", detail=f"{record.file} ({scale})")
    if broken:
        look.add("picture-not-finite")
    if clear:
        look.add("picture-alpha")
    if Image.registered_extensions().get(path.suffix.lower(), kind) != kind:
        look.add("picture-suffix", detail=f"{record.file} is {kind}")
    return True


def transparent(file: Image.Image) -> bool:
    """Tell whether some pixel is not opaque; only pictures that can have such are decoded."""
    if not file.has_transparency_data:
        return False
    alpha = np.asarray(file.convert("RGBA").getchannel("A"))
    return bool(alpha.min() < 255)


def with_pixels(look: Look, pixels: np.ndarray, path: Path | None) -> None:
    """Keep what tells pictures apart, and their brightness. (H, W, 3) uint8"""
    content = path.read_bytes() if path else pixels.tobytes()
    look.digest = hashlib.sha256(content).digest()
    flat = pixels.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // MANY)]
    look.mean = flat.mean(0)
    look.square = np.array([np.vdot(c, c) for c in flat.astype(np.float32).T]) / len(flat)
    grey = ImageOps.grayscale(Image.fromarray(pixels))
    look.small = np.asarray(grey.resize((16, 16), Image.Resampling.BOX))
    if np.asarray(grey.resize((64, 64), Image.Resampling.BOX)).std() < FLAT:
        look.add("picture-blank")
        return
    look.edges = edges(np.asarray(grey))
    nine = np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = (np.diff(nine, axis=1) > 0).ravel()  # difference hash: does it get brighter?
    look.dhash = int.from_bytes(np.packbits(bits).tobytes(), "big")


def shared(codes: list[Any]) -> float:
    """Return which part of the pixels of some masks belongs to several of them."""
    union, several = codes[0], []
    for code in codes[1:]:
        several.append(hotcoco.mask.merge([union, code], intersect=True))
        union = hotcoco.mask.merge([union, code])
    return masks.area(hotcoco.mask.merge(several)) / max(masks.area(union), 1)


def edges(grey: np.ndarray) -> np.ndarray | None:
    """Return the four edges at one length, None of small pictures. (H, W) uint8 -> (4, EDGE)"""
    if min(grey.shape) < EDGE // 2:
        return None
    lines = (Image.fromarray(e[None]) for e in (grey[0], grey[-1], grey[:, 0], grey[:, -1]))
    return np.vstack([np.asarray(e.resize((EDGE, 1), Image.Resampling.BOX)) for e in lines])


def instances(look: Look, data: DataSet) -> None:
    """Look at the masks of a record: areas, overlaps, objects that are there twice.

    What is a box alone counts as the rectangle of its box.
    """
    record = look.record
    frame = (record.height, record.width)
    objects = [a for a in record.annotations if not a.iscrowd]
    codes = [masks.to_rle(a.shape, frame) for a in objects]
    areas = [masks.area(code) for code in codes]
    geometry = evaluation_geometry(data, record)
    height, width = geometry.size
    for annotation, area in zip(objects, areas, strict=True):
        look.objects.append((annotation.category, area))
        if not rasterised(annotation.shape, record, geometry).any():
            size_text = f"{annotation.id} has {area} of {record.width}x{record.height} pixels"
            look.add("tiny", annotation.id, f"{size_text}, shown at {width}x{height}")
        differs = abs(annotation.area - area) > max(SOME, OFF * area)
        if differs and annotation.segmentation is not None:
            look.add("area-disagrees", annotation.id)
    if not 1 < len(codes) <= CROWDED:
        return
    look.overlap = shared(codes)
    category = np.array([a.category for a in objects])
    iou = np.triu(hotcoco.mask.iou(codes, codes, [0] * len(codes)), 1)
    twins = (iou > TWIN) & (category[:, None] == category)
    for other in np.flatnonzero(twins.any(0)):
        twin = objects[int(twins[:, other].argmax())]
        look.add("twin", objects[other].id, f"{twin.id} and {objects[other].id} in {record.file}")


def labels(part: Part, look: Look, classes: int) -> None:
    """Look at the label map of a record."""
    record = look.record
    try:
        values = part.data.label_map(record)
    except UserError as error:
        look.add("labels-broken", record.labels, str(error))
        return
    counts = np.bincount(values.ravel(), minlength=256)
    if values.shape != (record.height, record.width):
        look.add("labels-broken", record.labels, f"{record.labels} is of another size")
    elif counts[classes:BACKGROUND].any():
        unknown = classes + int(np.flatnonzero(counts[classes:BACKGROUND])[0])
        look.add("labels-broken", record.labels, f"{record.labels} has class {unknown}")
    elif not counts[:classes].any():
        look.add("labels-empty", record.labels)
    look.pixels = np.append(counts[:classes], counts[[BACKGROUND, IGNORE]])

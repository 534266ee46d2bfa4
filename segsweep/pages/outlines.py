"""Objects as they lie on a drawing: the pixels of a mask or of a box, tinted and outlined.

An outline runs outside its mask and has a dark rim: it shows on light and on dark pictures, and
however small an object is, its own pixels stay visible. A box alone is outlined and never tinted:
nobody says which of its pixels are the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from PIL import Image

from segsweep.data.base import Annotation
from segsweep.data.formats import masks
from segsweep.pages.palette import colour

FILL = 0.28  # weight of the colour inside a mask
SMALL = 24**2  # pixels on the drawing below which nothing is filled
RIM = 0.25  # what is left of the brightness beside an outline


@dataclass(frozen=True)
class Outline:
    """One object: its class, its mask at the picture's size, what to write beside it, its box."""

    category: int
    mask: dict[str, Any] | None  # RLE; without one the box is the outline
    text: str = ""
    box: Sequence[float] | None = None  # [x, y, w, h], drawn if given
    marked: bool = False  # the box is drawn so that it is seen first


@dataclass(frozen=True)
class Stencil:
    """A mask on the drawing: its pixels (h, w) bool, the first of them at (top, left)."""

    outline: Outline
    top: int
    left: int
    pixels: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; the latter two past the last pixel."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height


def outlined(classes: Sequence[str], instance: dict[str, Any]) -> Outline:
    """Return the outline of an object in the COCO form: of its mask, else of its box."""
    rle, text = instance.get("segmentation"), label(classes, instance)
    return Outline(instance["category_id"], rle, text, None if rle else instance["bbox"])


def annotated(annotation: Annotation, size: tuple[int, int], text: str = "") -> Outline:
    """Return the outline of an annotated object on a picture of a size (h, w), as `outlined`."""
    rle = mask_of(annotation, size)
    return Outline(annotation.category, rle, text, None if rle else annotation.bbox)


def mask_of(annotation: Annotation, size: tuple[int, int]) -> dict[str, Any] | None:
    """Return the RLE of an annotation on a picture of a size (h, w), None of a box alone."""
    shape = annotation.segmentation
    return None if shape is None else masks.to_rle(shape, size)


def label(classes: Sequence[str], instance: dict[str, Any]) -> str:
    """Return what stands beside an object: its class, if there are several, and its score."""
    score = f"{instance['score']:.2f}" if "score" in instance else ""
    name = "" if len(classes) == 1 else classes[instance["category_id"]]
    return f"{name} {score}".strip()


def stencil(outline: Outline, size: tuple[int, int], shape: Sequence[int]) -> Stencil:
    """Bring a mask that has pixels, or a box, to a drawing of `size` (width, height).

    `shape` (h, w, ...) is that of the picture.
    """
    if outline.mask is None:
        return box_stencil(outline, size, shape)
    height, width = outline.mask["size"]
    across, down = size[0] / width, size[1] / height
    x, y, w, h = (int(v) for v in masks.bbox(outline.mask))
    left, top = floor(x * across), floor(y * down)
    right, bottom = ceil((x + w) * across), ceil((y + h) * down)
    # zeros around it: a pixel of the drawing may reach beyond the box
    pad = 1 + ceil(1 / min(across, down))
    inside = masks.to_mask(outline.mask, (height, width))[y : y + h, x : x + w]
    grey = Image.fromarray(np.pad(inside, pad).astype(np.uint8) * 255)
    box = (left / across - x + pad, top / down - y + pad)
    box += (right / across - x + pad, bottom / down - y + pad)
    resized = np.asarray(grey.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box))
    # what gets thinner than a pixel is kept
    threshold = min(128, max(1, int(resized.max()) // 2))
    return Stencil(outline, top, left, resized >= threshold)


def box_stencil(outline: Outline, size: tuple[int, int], shape: Sequence[int]) -> Stencil:
    """Bring a box alone to a drawing: however small it is, some pixels there are its own."""
    assert outline.box is not None
    x, y, w, h = outline.box
    sides = []
    for start, length, old, new in ((y, h, shape[0], size[1]), (x, w, shape[1], size[0])):
        first = min(max(round(start * new / old), 0), new - 1)
        sides.append((first, min(max(round((start + length) * new / old), first + 1), new)))
    (top, bottom), (left, right) = sides
    return Stencil(outline, top, left, np.ones((bottom - top, right - left), bool))


def paint(painted: np.ndarray, form: Stencil, width: int) -> None:
    """Tint a mask and draw its outline, or that of a box, on a drawing (H, W, 3) uint8."""
    left, top, right, bottom = form.box
    margin = width + 1
    inside = np.pad(form.pixels, margin)
    line = dilated(inside, width)
    rim = dilated(line, 1) & ~line
    line &= ~inside
    # the part of all this that lies on the drawing
    rows = slice(max(top - margin, 0), min(bottom + margin, painted.shape[0]))
    columns = slice(max(left - margin, 0), min(right + margin, painted.shape[1]))
    part = painted[rows, columns]
    shift = np.s_[
        rows.start - top + margin : rows.stop - top + margin,
        columns.start - left + margin : columns.stop - left + margin,
    ]
    rgb = np.array(colour(form.outline.category))
    if form.outline.mask and form.pixels.sum() >= SMALL:
        part[inside[shift]] = (1 - FILL) * part[inside[shift]] + FILL * rgb
    part[rim[shift]] = RIM * part[rim[shift]]
    part[line[shift]] = rgb


def dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    """Let a mask grow by some pixels in the four directions. (h, w) bool"""
    grown = mask.copy()
    for _ in range(steps):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown

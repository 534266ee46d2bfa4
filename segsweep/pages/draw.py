"""Objects and label maps drawn on pictures, to be looked at on screens of any size.

An outline runs outside its mask and has a dark rim: it shows on light and on dark pictures, and
however small an object is, its own pixels stay visible. Small pictures are enlarged, huge ones are
reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segsweep.data.base import BACKGROUND
from segsweep.data.formats import masks
from segsweep.pages.colours import BLACK, RGB, WHITE, colour, ink

Span = tuple[int, int]  # least and most pixels of the longer side

SPAN: Span = (720, 2048)
FILL = 0.28  # weight of the colour inside a mask
SMALL = 24**2  # pixels on the drawing below which nothing is filled
RIM = 0.25  # what is left of the brightness beside an outline
CROWDED = 0.3  # part of a label that others may cover


@dataclass(frozen=True)
class Shape:
    """One object: its class, its mask at the picture's size, and what to write beside it."""

    category: int
    mask: dict[str, Any]  # RLE
    text: str = ""


@dataclass(frozen=True)
class Stencil:
    """A mask on the drawing: its pixels (h, w) bool, the first of them at (top, left)."""

    shape: Shape
    top: int
    left: int
    pixels: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; the latter two past the last pixel."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height


def overlay(pixels: np.ndarray, shapes: Sequence[Shape], span: Span = SPAN) -> Image.Image:
    """Draw objects, in order of importance, on a picture (H, W, 3) uint8."""
    picture = scaled(pixels, span)
    stencils = [stencil(shape, picture.size) for shape in shapes if masks.area(shape.mask)]
    painted = np.array(picture)
    width = line_width(picture)
    for one in sorted(stencils, key=lambda s: -s.pixels.sum()):  # small ones on top
        paint(painted, one, width)
    picture = Image.fromarray(painted)
    write(picture, stencils)
    return picture


def scaled(pixels: np.ndarray, span: Span) -> Image.Image:
    """Return a picture whose longer side lies within a span."""
    picture = Image.fromarray(pixels)
    longer = max(picture.size)
    factor = min(max(longer, span[0]), span[1]) / longer
    if factor == 1:
        return picture
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(
        size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
    )


def line_width(picture: Image.Image) -> int:
    """Return the pixels of an outline."""
    return 1 + round(max(picture.size) / 600)


def font_size(picture: Image.Image) -> int:
    """Return the pixels of a letter's height."""
    return min(28, max(13, max(picture.size) // 45))


def stencil(shape: Shape, size: tuple[int, int]) -> Stencil:
    """Bring a mask that has pixels to a drawing of `size` (width, height)."""
    height, width = shape.mask["size"]
    across, down = size[0] / width, size[1] / height
    x, y, w, h = (int(v) for v in masks.bbox(shape.mask))
    left, top = floor(x * across), floor(y * down)
    right, bottom = ceil((x + w) * across), ceil((y + h) * down)
    # zeros around it: a pixel of the drawing may reach beyond the box
    pad = 1 + ceil(1 / min(across, down))
    own = masks.to_mask(shape.mask, (height, width))[y : y + h, x : x + w]
    grey = Image.fromarray(np.pad(own, pad).astype(np.uint8) * 255)
    box = (left / across - x + pad, top / down - y + pad)
    box += (right / across - x + pad, bottom / down - y + pad)
    resized = np.asarray(grey.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box))
    # what gets thinner than a pixel is kept
    threshold = min(128, max(1, int(resized.max()) // 2))
    return Stencil(shape, top, left, resized >= threshold)


def paint(painted: np.ndarray, one: Stencil, width: int) -> None:
    """Tint a mask and draw its outline on a drawing (H, W, 3) uint8."""
    left, top, right, bottom = one.box
    margin = width + 1
    inside = np.pad(one.pixels, margin)
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
    rgb = np.array(colour(one.shape.category))
    if one.pixels.sum() >= SMALL:
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


def write(picture: Image.Image, stencils: Sequence[Stencil]) -> None:
    """Write the text of each object beside it, where it covers least; none where all is full."""
    draw = ImageDraw.Draw(picture)
    font = letters(font_size(picture))
    boxes = np.array([one.box for one in stencils], float).reshape(-1, 4)
    taken = np.zeros((0, 4))
    for k, one in enumerate(stencils):
        if not one.shape.text:
            continue
        places = _places(one.box, _extent(font, one.shape.text), picture.size)
        on_labels = shared(places, taken)
        cost = 4 * on_labels + shared(places, np.delete(boxes, k, 0))
        best = places[int(cost.round().argmin())]
        if on_labels[int(cost.round().argmin())] > CROWDED * _area(best):
            continue
        taken = np.vstack([taken, best])
        rgb = colour(one.shape.category)
        draw.rectangle((best[0], best[1], best[2] - 1, best[3] - 1), fill=rgb, outline=BLACK)
        middle = ((best[0] + best[2]) / 2, (best[1] + best[3]) / 2)
        draw.text(middle, one.shape.text, ink(rgb), font, anchor="mm")


def _places(
    box: tuple[int, int, int, int], extent: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Return where a label may lie, on the drawing: around a box, or in its corner. -> (n, 4)"""
    left, top, right, bottom = box
    width, height = extent
    corners = np.array(
        [
            (left, top - height - 3),
            (left, bottom + 3),
            (right - width, top - height - 3),
            (right - width, bottom + 3),
            (right + 3, top),
            (left - width - 3, top),
            (left + 2, top + 2),
        ],
        float,
    )
    limit = np.maximum(np.array(size) - extent, 0)
    corners = np.clip(corners, 0, limit)
    return np.hstack([corners, corners + extent])


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the area that each of the boxes `a` (n, 4) shares with all of `b` (m, 4). -> (n,)"""
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    return np.clip(high - low, 0, None).prod(-1).sum(1)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


@lru_cache
def letters(size: int) -> ImageFont.FreeTypeFont:
    """Return a font of some pixels that has the letters of most alphabets (DejaVu)."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _extent(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    """Return width and height of a label."""
    left, _, right, _ = font.getbbox(text)
    return ceil(right - left) + 8, round(font.size * 1.4)


def tinted(
    pixels: np.ndarray, labels: np.ndarray, names: Sequence[str], span: Span = SPAN
) -> Image.Image:
    """Draw a label map (H, W) on its picture, the names of its classes below."""
    picture = scaled(pixels, span)
    seen = np.asarray(Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST))
    table = np.array([colour(k) for k in range(256)])
    painted, known = np.array(picture), seen < BACKGROUND
    painted[known] = 0.55 * painted[known] + 0.45 * table[seen[known]]
    border = np.zeros_like(known)
    border[:, 1:] |= seen[:, 1:] != seen[:, :-1]
    border[1:] |= seen[1:] != seen[:-1]
    painted[border] = RIM * painted[border]
    classes = [int(k) for k in np.unique(seen) if k < BACKGROUND]
    return with_legend(Image.fromarray(painted), [(names[k], colour(k)) for k in classes])


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, RGB]]) -> Image.Image:
    """Put names with their colours below a picture, in as many lines as they need."""
    if not entries:
        return picture
    font = letters(font_size(picture))
    places, x, y, line = [], 4, picture.height + 4, round(font.size * 1.4) + 4
    for name, _ in entries:
        width = _extent(font, name)[0]
        if x > 4 and x + width > picture.width:
            x, y = 4, y + line
        places.append((x, y, x + width, y + line - 4))
        x += width + 4
    legend = Image.new("RGB", (picture.width, y + line), WHITE)
    legend.paste(picture)
    draw = ImageDraw.Draw(legend)
    for (name, rgb), box in zip(entries, places, strict=True):
        draw.rectangle(box, fill=rgb, outline=BLACK)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), name, ink(rgb), font, anchor="mm")
    return legend


def figure(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Lay pictures out in rows below the titles of the columns; all columns are equally wide."""
    gap, font = 8, letters(18)
    width = max(picture.width for row in rows for picture in row)
    heights = [max(picture.height for picture in row) for row in rows]
    head = 34
    sheet = Image.new(
        "RGB",
        (gap + len(titles) * (width + gap), head + sum(heights) + gap * len(heights)),
        WHITE,
    )
    draw = ImageDraw.Draw(sheet)
    for k, title in enumerate(titles):
        draw.text((gap + k * (width + gap) + width / 2, head / 2), title, BLACK, font, anchor="mm")
    y = head
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            sheet.paste(picture, (gap + k * (width + gap) + (width - picture.width) // 2, y))
        y += height + gap
    return sheet

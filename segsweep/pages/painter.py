"""Objects and label maps drawn on pictures, to be looked at on screens of any size.

Small pictures are enlarged, huge ones are reduced.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segsweep.data.base import BACKGROUND
from segsweep.data.formats import masks
from segsweep.pages.outlines import RIM, Outline, Stencil, paint, stencil
from segsweep.pages.palette import BLACK, RGB, WHITE, colour, ink

Span = tuple[int, int]  # least and most pixels of the longer side

SPAN: Span = (720, 2048)
PANEL: Span = (420, 420)  # of pictures beside one another
CROWDED = 0.3  # part of a label that others may cover
MARK: RGB = (255, 40, 40)  # of a box that something is said of
QUALITY = 82  # of pictures inside a page


def overlay(pixels: np.ndarray, outlines: Sequence[Outline], span: Span = SPAN) -> Image.Image:
    """Draw objects, in order of importance, on a picture (H, W, 3) uint8."""
    picture = scaled(pixels, span)
    seen = (each for each in outlines if each.mask is None or masks.area(each.mask))
    stencils = [stencil(each, picture.size, pixels.shape) for each in seen]
    painted = np.array(picture)
    width = line_width(picture)
    for each in sorted(stencils, key=lambda s: -s.pixels.sum()):  # small ones on top
        paint(painted, each, width)
    picture = Image.fromarray(painted)
    frame(picture, outlines, picture.width / pixels.shape[1], picture.height / pixels.shape[0])
    write(picture, stencils)
    return picture


def frame(picture: Image.Image, outlines: Sequence[Outline], across: float, down: float) -> None:
    """Draw the boxes that are given: thin in the colour of the class, marked ones red on white."""
    draw = ImageDraw.Draw(picture)
    for outline in sorted(outlines, key=lambda o: o.marked):
        if outline.box is None or not (outline.mask or outline.marked):
            continue
        x, y, w, h = outline.box
        corners = (across * x, down * y, across * (x + w), down * (y + h))
        if outline.marked:
            draw.rectangle(corners, outline=WHITE, width=5)
            draw.rectangle(corners, outline=MARK, width=3)
        else:
            draw.rectangle(corners, outline=colour(outline.category))


def data_url(picture: Image.Image) -> str:
    """Return a picture as text that a page can hold."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


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


def write(picture: Image.Image, stencils: Sequence[Stencil]) -> None:
    """Write the text of each object beside it, where it covers least; none where all is full."""
    draw = ImageDraw.Draw(picture)
    font = letters(font_size(picture))
    boxes = np.array([form.box for form in stencils], float).reshape(-1, 4)
    taken = np.zeros((0, 4))
    for k, form in enumerate(stencils):
        text, rgb = form.outline.text, colour(form.outline.category)
        if not text:
            continue
        places = _places(form.box, _extent(font, text), picture.size)
        on_labels = shared(places, taken)
        cost = 4 * on_labels + shared(places, np.delete(boxes, k, 0))
        least = int(cost.round().argmin())
        best = places[least]
        if on_labels[least] > CROWDED * (best[2:] - best[:2]).prod():
            continue
        taken = np.vstack([taken, best])
        draw.rectangle((best[0], best[1], best[2] - 1, best[3] - 1), fill=rgb, outline=BLACK)
        middle = ((best[0] + best[2]) / 2, (best[1] + best[3]) / 2)
        draw.text(middle, text, ink(rgb), font, anchor="mm")


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
    pixels: np.ndarray, labels: np.ndarray, names: Sequence[str] = (), span: Span = SPAN
) -> Image.Image:
    """Draw a label map (H, W) on its picture, those of its classes that have names below."""
    picture = scaled(pixels, span)
    seen = np.asarray(Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST))
    table = np.array([colour(k) for k in range(256)])
    painted, known = np.array(picture), seen < BACKGROUND
    painted[known] = 0.55 * painted[known] + 0.45 * table[seen[known]]
    border = np.zeros_like(known)
    border[:, 1:] |= seen[:, 1:] != seen[:, :-1]
    border[1:] |= seen[1:] != seen[:-1]
    painted[border] = RIM * painted[border]
    classes = [int(k) for k in np.unique(seen) if k < len(names)]
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

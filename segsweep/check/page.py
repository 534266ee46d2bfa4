"""One HTML page that needs nothing else: findings, numbers, overlays of pictures."""

from __future__ import annotations

import base64
import colorsys
import io
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segsweep.base.errors import UserError
from segsweep.check.parts import Part
from segsweep.check.pictures import Look
from segsweep.data.base import BACKGROUND, Annotation, Record
from segsweep.data.findings import LEVELS, Finding
from segsweep.data.formats import masks
from segsweep.data.kinds import KINDS

SIDE = 360  # pixels of an overlay at most
RANDOM, SUSPICIOUS, ALIKE, PAIRS = 12, 24, 4, 12
QUALITY = 80  # of the JPEG overlays
MARK = (255, 40, 40)


@dataclass
class Shown:
    """A picture of the page: `marked` are ids of annotations that something is said of."""

    part: Part
    record: Record
    reasons: list[str] = field(default_factory=list)
    marked: set[Any] = field(default_factory=set)
    picture: str = ""  # data URL, empty if the file cannot be shown

    @property
    def title(self) -> str:
        """Split and file."""
        return f"{self.part.name}: {self.record.file}"


def suspicious(looks: Sequence[tuple[Part, list[Look]]]) -> list[Shown]:
    """Return the pictures that findings speak of, the worst first, and the extremes."""
    found: dict[tuple[str, Any, str], Shown] = {}
    told: Counter[str] = Counter()
    for part, own in looks:
        places = index([look.record for look in own])
        for finding in part.findings():
            if finding.level == "note" and finding.code != "tiny":
                continue
            for identity in finding.ids:
                kind = "annotation" if finding.code in OF_ANNOTATIONS else "image"
                for record in places.get((kind, identity), [])[:ALIKE]:
                    if told[finding.code] >= ALIKE:
                        break
                    key = (part.name, record.image_id, record.file)
                    one = found.setdefault(key, Shown(part, record))
                    if finding.code not in one.reasons:
                        one.reasons.append(finding.code)
                        told[finding.code] += 1
                    one.marked |= {identity} if kind == "annotation" else set()
        for reason, most in extremes(own):
            key = (part.name, most.record.image_id, most.record.file)
            found.setdefault(key, Shown(part, most.record)).reasons.append(reason)
    severity = {code: LEVELS.index(kind.level) for code, kind in KINDS.items()}
    ranked = sorted(found.values(), key=lambda s: min(severity.get(r, 3) for r in s.reasons))
    return ranked[:SUSPICIOUS]


OF_ANNOTATIONS = {
    code for code in KINDS if not code.startswith(("image-", "picture-", "leak", "labels-"))
}


def index(records: Sequence[Record]) -> dict[tuple[str, Any], list[Record]]:
    """Return where ids of annotations, ids of images, and files are."""
    found: dict[tuple[str, Any], list[Record]] = {}
    for record in records:
        for key in (record.image_id, record.file, record.labels):
            found.setdefault(("image", key), []).append(record)
        for annotation in record.annotations:
            found.setdefault(("annotation", annotation.id), []).append(record)
    return found


def extremes(looks: Sequence[Look]) -> list[tuple[str, Look]]:
    """Return the most crowded picture and the one with most overlap."""
    if not looks:
        return []
    crowded = max(looks, key=lambda look: len(look.objects))
    overlapping = max(looks, key=lambda look: look.overlap)
    most = len(crowded.objects)
    found = [(f"most objects: {most}", crowded)] if most > 1 else []
    if overlapping.overlap >= 0.01:
        found.append((f"most overlap: {100 * overlapping.overlap:.0f} %", overlapping))
    return found


def chosen(looks: Sequence[tuple[Part, list[Look]]]) -> list[Shown]:
    """Return pictures drawn at random, the same every time."""
    every = [Shown(part, look.record) for part, own in looks for look in own if look.usable]
    return random.Random(0).sample(every, min(RANDOM, len(every)))


def overlay(part: Part, record: Record, marked: Collection[Any] = ()) -> str:
    """Return a picture with its masks and boxes as a data URL, empty if it cannot be read."""
    try:
        pixels = part.data.image(record)
        scale = min(1.0, SIDE / max(record.height, record.width))
        size = max(1, round(record.width * scale)), max(1, round(record.height * scale))
        small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
        painted = np.asarray(small).astype(np.float32)
        if record.labels is not None:
            paint_labels(painted, part.data.label_map(record))
        for annotation in record.annotations:
            paint(painted, mask_at(annotation, record, (size[1], size[0])), annotation.category)
    except (UserError, MemoryError):
        return ""
    shown = Image.fromarray(painted.astype(np.uint8))
    outline(shown, record, scale, marked)
    return data_url(shown)


def mask_at(annotation: Annotation, record: Record, size: tuple[int, int]) -> np.ndarray:
    """Return a mask at the size of the overlay. -> (h, w) bool"""
    height, width = size
    if not isinstance(annotation.segmentation, dict):
        scale = (width / record.width, height / record.height)
        return masks.to_mask(masks.moved(annotation.segmentation, scale, (0, 0)), size)
    whole = masks.to_mask(annotation.segmentation, (record.height, record.width))
    return nearest(whole, size)


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by taking the nearest pixel. (H, W) -> (h, w)"""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return values[np.ix_(rows, columns)]


def paint(pixels: np.ndarray, mask: np.ndarray, category: int) -> None:
    """Tint a mask in the colour of its class, its border fully. (h, w, 3) float, (h, w) bool"""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    pixels[inner] = 0.6 * pixels[inner] + 0.4 * np.array(colour(category))
    pixels[mask & ~inner] = colour(category)


def paint_labels(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Tint a label map; background stays as it is."""
    small = nearest(labels, pixels.shape[:2])
    for category in np.unique(small):
        if category != BACKGROUND:
            paint(pixels, small == category, int(category))


def outline(picture: Image.Image, record: Record, scale: float, marked: Collection[Any]) -> None:
    """Draw the boxes: thin in the colour of the class, marked ones red on white."""
    draw = ImageDraw.Draw(picture)
    for annotation in sorted(record.annotations, key=lambda a: a.id in marked):
        x, y, width, height = (scale * v for v in annotation.bbox)
        box = (x, y, x + width, y + height)
        if annotation.id in marked:
            draw.rectangle(box, outline=(255, 255, 255), width=5)
            draw.rectangle(box, outline=MARK, width=3)
        else:
            draw.rectangle(box, outline=colour(annotation.category))


def colour(category: int) -> tuple[int, int, int]:
    """Return a colour that is far from those of the classes before (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + category * 0.381966) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def data_url(picture: Image.Image) -> str:
    """Return a picture as text that a page can hold."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def render(
    report: dict[str, Any],
    findings: Sequence[Finding],
    looks: Sequence[tuple[Part, list[Look]]],
    pairs: Sequence[tuple[str, Look, Look]],
) -> str:
    """Return the page."""
    from jinja2 import Environment

    owner = {id(look): part for part, own in looks for look in own}
    groups = {"suspicious": suspicious(looks), "random": chosen(looks)}
    for one in (one for group in groups.values() for one in group):
        one.picture = overlay(one.part, one.record, one.marked)
    twins = [
        (code, [Shown(owner[id(look)], look.record) for look in (first, second)])
        for code, first, second in pairs[:PAIRS]
    ]
    for one in (one for _, both in twins for one in both):
        one.picture = overlay(one.part, one.record)
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["colour"] = lambda category: f"rgb{colour(category)}"
    return environment.from_string(template).render(
        report=report, findings=findings, groups=groups, twins=twins, pairs=len(pairs)
    )

"""Runs side by side: ground truth | first run | second run ..., as a figure and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically, write_text
from segsweep.data.base import Annotation, Record
from segsweep.data.formats import masks
from segsweep.pages import difference
from segsweep.pages.analysis_forms import csv_text
from segsweep.pages.difference import Lost, Side
from segsweep.pages.draw import Shape, figure, overlay
from segsweep.pages.gallery import label
from segsweep.pages.page import inlined, render

PANEL, CROP = 420, 200  # pixels of a longer side
CROPS = 12  # objects of each direction that the page shows; the list has all
AROUND = 0.6  # of an object's longer side that a crop shows on each side of it
TRUTH = "Ground truth"


@dataclass(frozen=True)
class Scene:
    """One image: its pixels (H, W, 3), its objects, and what each run found (best first)."""

    record: Record
    pixels: np.ndarray
    truth: list[Shape]
    found: list[list[Shape]]

    def panels(self) -> list[Image.Image]:
        """Draw the objects, then what each run found."""
        span = PANEL, PANEL
        return [overlay(self.pixels, shapes, span) for shapes in (self.truth, *self.found)]

    def crops(self, annotation: Annotation) -> list[Image.Image]:
        """Draw the surroundings of one object: itself, then what each run found there."""
        box = around(annotation, self.record)
        left, top, right, bottom = box
        pixels, span = self.pixels[top:bottom, left:right], (CROP, CROP)
        size = self.record.height, self.record.width
        own = Shape(annotation.category, masks.to_rle(annotation.segmentation, size))
        return [
            overlay(pixels, [cut(shape, box) for shape in shapes], span)
            for shapes in ([own], *self.found)
        ]


def scene(compared: Sequence[Side], record: Record, found: list[list[dict[str, Any]]]) -> Scene:
    """Return an image with what each run found on it (COCO form, above the run's score)."""
    first = compared[0]
    names, size = first.record["data"]["classes"], (record.height, record.width)
    truth = [
        Shape(
            a.category,
            masks.to_rle(a.segmentation, size),
            label(names, {"category_id": a.category}),
        )
        for a in record.annotations
        if not a.iscrowd
    ]
    shapes = [
        [Shape(one["category_id"], one["segmentation"], label(names, one)) for one in own]
        for own in found
    ]
    return Scene(record, first.config.data.image(record), truth, shapes)


def around(annotation: Annotation, record: Record) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the surroundings of an object, inside its image."""
    x, y, width, height = annotation.bbox
    half = max(width, height) * (0.5 + AROUND) + 8
    across, down = x + width / 2, y + height / 2
    left, top = max(floor(across - half), 0), max(floor(down - half), 0)
    right, bottom = min(ceil(across + half), record.width), min(ceil(down + half), record.height)
    return min(left, right - 1), min(top, bottom - 1), right, bottom


def cut(shape: Shape, box: tuple[int, int, int, int]) -> Shape:
    """Return the part of a shape inside a box."""
    left, top, right, bottom = box
    part = masks.to_mask(shape.mask, shape.mask["size"])[top:bottom, left:right]
    text = shape.text if part.any() else ""
    return Shape(shape.category, masks.encode(part[None])[0], text)


def write(compared: Sequence[Side], out: Path, count: int) -> Iterator[Path]:
    """Write the page, the figure and the lists of objects; yield their paths.

    Raises UserError where the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    pairs = [(compared[0], other) for other in compared[1:]]
    losses = [difference.lost(*way) for a, b in pairs for way in ((a, b), (b, a))]
    shown = difference.contested(compared, count)
    crops = [sorted(own, key=lambda x: -x.score_found)[:CROPS] for own in losses]
    wanted = {*shown, *(one.image_id for own in crops for one in own)}
    scenes = gather(compared, wanted)
    rows = {image_id: scenes[image_id].panels() for image_id in shown}
    sheet = figure([*rows.values()], [TRUTH, *(side.label for side in compared)])
    write_atomically(out / "figure.png", lambda path: sheet.save(path, "PNG", optimize=True))
    yield out / "figure.png"
    every = difference.every(compared)
    listed = [one._asdict() for own in losses for one in own]
    texts = {
        "objects.csv": csv_text(every, list(every[0])) if every else "",
        "lost.csv": csv_text(listed, Lost._fields[:-1]),
        "index.html": page(compared, scenes, rows, losses, crops),
    }
    for name, text in texts.items():
        write_text(out / name, text)
        yield out / name


def gather(compared: Sequence[Side], wanted: set[int]) -> dict[int, Scene]:
    """Return some images by id; the files of predictions are read once."""
    data = compared[0].config.data
    found: dict[int, list[list[dict[str, Any]]]] = {image_id: [] for image_id in wanted}
    for side in compared:
        for image_id, own in side.predicted:
            if image_id in wanted:
                found[image_id].append([one for one in own if one["score"] >= side.score])
    records = {record.image_id: record for record in data.records("val")}
    return {i: scene(compared, records[i], own) for i, own in found.items()}


def page(
    compared: Sequence[Side],
    scenes: dict[int, Scene],
    rows: dict[int, list[Image.Image]],
    losses: list[list[Lost]],
    crops: list[list[Lost]],
) -> str:
    """Return the page, which needs nothing else."""
    first, *others = compared
    pairs = []
    for k, other in enumerate(others):
        ways = []
        for own, some in zip(losses[2 * k : 2 * k + 2], crops[2 * k : 2 * k + 2], strict=True):
            drawn = [
                (one, _inlined(scenes[one.image_id].crops(_object(first, one)))) for one in some
            ]
            ways.append({"all": own, "drawn": drawn})
        pairs.append(
            {
                "other": other,
                "heads": difference.heads(first, other),
                "rows": [difference.cells(row) for row in difference.rows(first, other)],
                "ways": ways,
            }
        )
    summaries = [side.summary() for side in compared]
    return render(
        "compare.html",
        titles=[TRUTH, *(side.label for side in compared)],
        first=first,
        iou=first.matches.iou,
        images=len(first.matches.images),
        summaries=summaries,
        rows=[(scenes[i].record.file, _inlined(panels)) for i, panels in rows.items()],
        pairs=pairs,
    )


def _object(side: Side, one: Lost) -> Annotation:
    return side.objects[one.place][1]


def _inlined(pictures: Sequence[Image.Image]) -> list[str]:
    return [inlined(picture) for picture in pictures]

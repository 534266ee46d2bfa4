"""Runs side by side: ground truth | first run | second run ..., as a figure and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segsweep.base.csv_files import csv_table
from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically, write_text
from segsweep.base.shell import render
from segsweep.data.base import Annotation, Record
from segsweep.data.formats import masks
from segsweep.pages import difference
from segsweep.pages.difference import ComparedRun, LostObject
from segsweep.pages.painter import Outline, data_url, label, letters, overlay
from segsweep.pages.palette import BLACK, WHITE
from segsweep.results.details import legend
from segsweep.results.frame import flatten

PANEL, CROP = 420, 200  # pixels of a longer side
CROPS = 12  # objects of each direction that the page shows; the list has all
AROUND = 0.6  # of an object's longer side that a crop shows on each side of it
TRUTH = "Ground truth"
GAP, HEAD = 8, 34  # pixels between the pictures of the figure, and above them


@dataclass(frozen=True)
class ComparedImage:
    """One image: its pixels (H, W, 3), its objects, and what each run predicts (best first)."""

    record: Record
    pixels: np.ndarray
    truth: list[Outline]
    predicted: list[list[Outline]]

    def panels(self) -> list[Image.Image]:
        """Draw the objects, then what each run found."""
        span = PANEL, PANEL
        return [overlay(self.pixels, outlines, span) for outlines in (self.truth, *self.predicted)]

    def crops(self, annotation: Annotation) -> list[Image.Image]:
        """Draw the surroundings of one object: itself, then what each run found there."""
        box = around(annotation, self.record)
        left, top, right, bottom = box
        pixels, span = self.pixels[top:bottom, left:right], (CROP, CROP)
        size = self.record.height, self.record.width
        alone = Outline(annotation.category, masks.to_rle(annotation.segmentation, size))
        return [
            overlay(pixels, [cut(outline, box) for outline in outlines], span)
            for outlines in ([alone], *self.predicted)
        ]


def compared_image(
    first: ComparedRun, record: Record, predicted: list[list[dict[str, Any]]]
) -> ComparedImage:
    """Return an image with what each run found on it (COCO form, above the run's score)."""
    names, size = first.record["data"]["classes"], (record.height, record.width)
    truth = [
        Outline(
            a.category,
            masks.to_rle(a.segmentation, size),
            label(names, {"category_id": a.category}),
        )
        for a in record.annotations
        if not a.iscrowd
    ]
    outlines = [
        [Outline(x["category_id"], x["segmentation"], label(names, x)) for x in instances]
        for instances in predicted
    ]
    return ComparedImage(record, first.config.data.image(record), truth, outlines)


def around(annotation: Annotation, record: Record) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the surroundings of an object, inside its image."""
    x, y, width, height = annotation.bbox
    half = max(width, height) * (0.5 + AROUND) + 8
    across, down = x + width / 2, y + height / 2
    left, top = max(floor(across - half), 0), max(floor(down - half), 0)
    right, bottom = min(ceil(across + half), record.width), min(ceil(down + half), record.height)
    return min(left, right - 1), min(top, bottom - 1), right, bottom


def cut(outline: Outline, box: tuple[int, int, int, int]) -> Outline:
    """Return the part of an object inside a box."""
    left, top, right, bottom = box
    part = masks.to_mask(outline.mask, outline.mask["size"])[top:bottom, left:right]
    text = outline.text if part.any() else ""
    return Outline(outline.category, masks.encode(part[None])[0], text)


def write(compared: Sequence[ComparedRun], out: Path, count: int) -> Iterator[Path]:
    """Write the page, the figure and the lists of objects; yield their paths.

    Raises UserError where the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    ways = [way for b in compared[1:] for way in ((compared[0], b), (b, compared[0]))]
    losses = [difference.lost(*way) for way in ways]
    crops = [sorted(way, key=lambda x: -x.score_found)[:CROPS] for way in losses]
    shown = difference.contested(compared, count)
    images = gather(compared, {*shown, *(x.image_id for way in crops for x in way)})
    rows = {image_id: images[image_id].panels() for image_id in shown}
    sheet = figure([*rows.values()], [TRUTH, *(run.label for run in compared)])
    write_atomically(out / "figure.png", lambda path: sheet.save(path, "PNG", optimize=True))
    yield out / "figure.png"
    objects = difference.all_objects(compared)
    listed = [x._asdict() for way in losses for x in way]
    texts = {
        "objects.csv": csv_table(objects, list(objects[0])) if objects else "",
        "lost.csv": csv_table(listed, LostObject._fields[:-1]),
        "index.html": page(compared, images, rows, losses, crops),
    }
    for name, text in texts.items():
        write_text(out / name, text)
        yield out / name


def gather(compared: Sequence[ComparedRun], image_ids: set[int]) -> dict[int, ComparedImage]:
    """Return some images by id; the files of predictions are read once."""
    data = compared[0].config.data
    predicted: dict[int, list[list[dict[str, Any]]]] = {image_id: [] for image_id in image_ids}
    for run in compared:
        for image_id, instances in run.predicted:
            if image_id in image_ids:
                predicted[image_id].append([x for x in instances if x["score"] >= run.score])
    records = {record.image_id: record for record in data.records("val")}
    return {i: compared_image(compared[0], records[i], each) for i, each in predicted.items()}


def page(
    compared: Sequence[ComparedRun],
    images: dict[int, ComparedImage],
    rows: dict[int, list[Image.Image]],
    losses: list[list[LostObject]],
    crops: list[list[LostObject]],
) -> str:
    """Return the page, which needs nothing else."""
    first, *others = compared

    def drawn(x: LostObject) -> tuple[LostObject, list[str]]:
        return x, _urls(images[x.image_id].crops(first.objects[x.place][1]))

    ways = [
        {"all": objects, "drawn": [drawn(x) for x in surest]}
        for objects, surest in zip(losses, crops, strict=True)
    ]
    pairs = [
        {
            "other": other,
            "heads": difference.heads(first, other),
            "rows": [difference.cells(row) for row in difference.rows(first, other)],
            "absent": difference.absent(first),
            "ways": ways[2 * k : 2 * k + 2],
        }
        for k, other in enumerate(others)
    ]
    return render(
        "pages/compare.html",
        titles=[TRUTH, *(run.label for run in compared)],
        first=first,
        remarks=difference.remarks(compared),
        symbols=legend(flatten(run.record) for run in compared),
        iou=first.matches.iou,
        images=len(first.matches.images),
        summaries=[run.summary() for run in compared],
        rows=[(images[i].record.file, _urls(panels)) for i, panels in rows.items()],
        pairs=pairs,
    )


def _urls(pictures: Sequence[Image.Image]) -> list[str]:
    return [data_url(picture) for picture in pictures]


def figure(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Lay pictures out in rows below the titles of the columns; all columns are equally wide."""
    width = max(picture.width for row in rows for picture in row)
    heights = [max(picture.height for picture in row) for row in rows]
    size = GAP + len(titles) * (width + GAP), HEAD + sum(heights) + GAP * len(heights)
    sheet = Image.new("RGB", size, WHITE)
    draw, font = ImageDraw.Draw(sheet), letters(18)
    for k, title in enumerate(titles):
        middle = GAP + k * (width + GAP) + width / 2, HEAD / 2
        draw.text(middle, title, BLACK, font, anchor="mm")
    y = HEAD
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            sheet.paste(picture, (GAP + k * (width + GAP) + (width - picture.width) // 2, y))
        y += height + GAP
    return sheet

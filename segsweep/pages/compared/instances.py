"""Runs of instances beside one another: which objects each finds, and which it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any

import numpy as np
from PIL import Image

from segsweep.base.csv_files import csv_table
from segsweep.data.base import Annotation, Record
from segsweep.data.formats import masks
from segsweep.pages import difference
from segsweep.pages.compared.base import TRUTH, ImageRow, PairTable, StoredRun
from segsweep.pages.difference import ComparedRun, LostObject
from segsweep.pages.outlines import Outline, annotated, label, outlined
from segsweep.pages.painter import PANEL, data_url, overlay

CROP = 200  # pixels of a longer side
AROUND = 0.6  # of an object's longer side that a crop shows on each side of it
TEST = (
    "p: probability of a split between the two \u201conly\u201d columns that is at least this "
    "uneven, if both runs were equally good (exact McNemar test, two-sided)."
)


def compared(stored: Sequence[StoredRun], score: float | str, iou: float) -> ObjectComparison:
    """Compare the objects that runs found; see `base.compared`."""
    return ObjectComparison(difference.compared_runs(stored, score, iou))


@dataclass(frozen=True)
class ObjectComparison:
    """Runs by the objects that they find; see `base.ComparedRuns`."""

    runs: list[ComparedRun]

    @property
    def titles(self) -> list[str]:
        """Ground truth, then each run."""
        return [TRUTH, *(run.label for run in self.runs)]

    def about(self) -> tuple[str, str, str]:
        """Say what is compared, what its columns mean, and which images are shown."""
        first = self.runs[0]
        own = "; it is that of the best F1 on the validation images, where nothing else is said"
        counts = "mask counts" if first.matches.by_masks else "box counts"
        lacking = "" if first.matches.by_masks else "; not all of these runs find masks"
        return (
            f"{first.config.data.name}: {len(first.objects)} objects on "
            f"{len(first.matches.images)} validation images; a predicted {counts} as right "
            f"where it overlaps an object's by {first.matches.iou:g} or more (IoU){lacking}.",
            f"Score: predictions with this score or more count{own if first.reason else ''}. False "
            "alarms: predictions that are no object.",
            "The images on whose objects the runs disagree most; predictions of each run from its "
            f"score on{', that of best F1 where nothing else is said' if first.reason else ''}."
            f"{self._boxes()}",
        )

    def _boxes(self) -> str:
        """Say which runs are drawn as boxes."""
        alone = [run.label for run in self.runs if not run.predicted.masks]
        who = ", ".join(alone) if len(alone) < len(self.runs) else "They"
        return f" {who} found boxes without masks, which are outlined and not filled." * bool(alone)

    def summaries(self) -> list[dict[str, Any]]:
        """Return what each run found altogether, by column."""
        alike = len({run.quantity for run in self.runs}) == 1
        return [run.summary(alike) for run in self.runs]

    def remarks(self) -> list[str]:
        """Return what a reader must know of scores."""
        return difference.remarks(self.runs)

    def pairs(self) -> Iterator[PairTable]:
        """Yield the objects of the first run beside those of each other one."""
        first, *others = self.runs
        for other in others:
            rows = [difference.cells(row) for row in difference.rows(first, other)]
            heads, absent = difference.heads(first, other), difference.absent(first)
            yield PairTable(other.label, heads, rows, absent, TEST)

    def pictures(self, count: int, crops: int = 0) -> tuple[list[ImageRow], list[list[Any]]]:
        """Draw the images that runs disagree on, and the surest objects that one of two loses."""
        shown = difference.contested(self.runs, count)
        pairs = [self._ways(other) if crops else [] for other in self.runs[1:]]
        surest = [
            sorted(way, key=lambda x: -x.score_found)[:crops] for ways in pairs for way in ways
        ]
        images = gather(self.runs, {*shown, *(x.image_id for way in surest for x in way)})
        rows = [ImageRow(images[i].record.file, images[i].panels()) for i in shown]

        def drawn(x: LostObject) -> tuple[LostObject, list[str]]:
            pieces = images[x.image_id].crops(self.runs[0].objects[x.place][1])
            return x, [data_url(piece) for piece in pieces]

        few = iter(surest)
        ways = [[{"all": way, "drawn": [*map(drawn, next(few))]} for way in ways] for ways in pairs]
        return rows, ways

    def _ways(self, other: ComparedRun) -> list[list[LostObject]]:
        """Return what the other run loses of the first, and the first of it."""
        first = self.runs[0]
        return [difference.lost(first, other), difference.lost(other, first)]

    def lists(self) -> dict[str, str]:
        """Return all objects, and those that are lost, as CSV files."""
        objects = difference.all_objects(self.runs)
        lost = [x._asdict() for run in self.runs[1:] for way in self._ways(run) for x in way]
        return {
            "objects.csv": csv_table(objects, list(objects[0])) if objects else "",
            "lost.csv": csv_table(lost, LostObject._fields[:-1]),
        }


@dataclass(frozen=True)
class ComparedImage:
    """One image: its pixels (H, W, 3), its objects, and what each run predicts (best first)."""

    record: Record
    pixels: np.ndarray
    truth: list[Outline]
    predicted: list[list[Outline]]

    def panels(self) -> list[Image.Image]:
        """Draw the objects, then what each run found."""
        return [overlay(self.pixels, outlines, PANEL) for outlines in (self.truth, *self.predicted)]

    def crops(self, annotation: Annotation) -> list[Image.Image]:
        """Draw the surroundings of one object: itself, then what each run found there."""
        box = around(annotation, self.record)
        left, top, right, bottom = box
        pixels, span = self.pixels[top:bottom, left:right], (CROP, CROP)
        size = self.record.height, self.record.width
        alone = annotated(annotation, size)
        return [
            overlay(pixels, [part for o in outlines if (part := cut(o, box))], span)
            for outlines in ([alone], *self.predicted)
        ]


def compared_image(
    first: ComparedRun, record: Record, predicted: list[list[dict[str, Any]]]
) -> ComparedImage:
    """Return an image with what each run found on it (COCO form, above the run's score)."""
    names, size = first.record["data"]["classes"], (record.height, record.width)
    truth = [
        annotated(a, size, label(names, {"category_id": a.category}))
        for a in record.annotations
        if not a.iscrowd
    ]
    outlines = [[outlined(names, x) for x in instances] for instances in predicted]
    return ComparedImage(record, first.config.data.image(record), truth, outlines)


def around(annotation: Annotation, record: Record) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the surroundings of an object, inside its image."""
    x, y, width, height = annotation.bbox
    half = max(width, height) * (0.5 + AROUND) + 8
    across, down = x + width / 2, y + height / 2
    left, top = max(floor(across - half), 0), max(floor(down - half), 0)
    right, bottom = min(ceil(across + half), record.width), min(ceil(down + half), record.height)
    return min(left, right - 1), min(top, bottom - 1), right, bottom


def cut(outline: Outline, box: tuple[int, int, int, int]) -> Outline | None:
    """Return the part of an object inside a box, None of a box alone that lies elsewhere."""
    left, top, right, bottom = box
    if outline.mask is None and outline.box:
        x, y, w, h = outline.box
        near, far = (max(x, left), max(y, top)), (min(x + w, right), min(y + h, bottom))
        sides = [b - a for a, b in zip(near, far, strict=True)]
        inside = replace(outline, box=[near[0] - left, near[1] - top, *sides])
        return inside if min(sides) > 0 else None
    assert outline.mask is not None
    part = masks.to_mask(outline.mask, outline.mask["size"])[top:bottom, left:right]
    text = outline.text if part.any() else ""
    return Outline(outline.category, masks.encode(part[None])[0], text)


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

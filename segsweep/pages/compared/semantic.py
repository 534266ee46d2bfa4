"""Runs of label maps beside one another: image by image, by IoU, and where their maps differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segsweep.analysis.semantic import image_iou
from segsweep.base.csv_files import csv_table
from segsweep.base.errors import Damaged, UserError
from segsweep.data.base import BACKGROUND, IGNORE, Record
from segsweep.data.geometry import Geometry, evaluation_geometry, nearest
from segsweep.metrics.miou import by_class
from segsweep.pages.compared.base import (
    TRUTH,
    ImageRow,
    PairTable,
    StoredRun,
    p_text,
    same_images,
)
from segsweep.pages.painter import PANEL, tinted, with_legend
from segsweep.pages.palette import colour
from segsweep.results.over_sets import sign_flips
from segsweep.results.wording import elided

ONLY_FIRST, ONLY_OTHER, BOTH_WRONG = 5, 4, 6  # places of their colours
NAMED = 20  # letters of a run in a legend
TEST = (
    "p: probability of a mean difference that is at least this far from zero, if it were chance in "
    "each image which run is better (paired sign flips, two-sided)."
)


@dataclass(frozen=True)
class MapRun:
    """A run of label maps by its images: IoU in percent, nan where nothing is defined."""

    stored: StoredRun
    images: list[int]
    image_iou: np.ndarray  # (N,)
    class_iou: np.ndarray  # (N, K)
    there: np.ndarray  # (N, K) bool, classes in truth

    @property
    def label(self) -> str:
        """What tells it from the others."""
        return self.stored.label

    @property
    def record(self) -> dict[str, Any]:
        """Its record."""
        return self.stored.record

    def summary(self) -> dict[str, Any]:
        """Return what it reaches altogether."""
        metric = self.stored.config.metrics
        known = self.image_iou[~np.isnan(self.image_iou)]
        return {
            "run": self.label,
            "id": self.record["id"],
            metric.quantity(metric.key): self.record["metrics"][metric.key]["value"],
            "images": len(known),
            "image IoU": _mean(known),
            "median": float(np.median(known)) if len(known) else None,
            "lowest": float(known.min()) if len(known) else None,
        }


def compared(stored: Sequence[StoredRun], score: float | str, iou: float) -> MapComparison:
    """Compare the label maps of runs; see `base.compared`.

    Raises UserError for a score or an IoU that was asked for: they are of objects.
    """
    if (score, iou) != ("best", 0.5):
        raise UserError(
            "compare: score= and iou= make objects count, and these runs have label maps"
        )
    runs = [_read(run) for run in stored]
    same_images(stored, [run.images for run in runs])
    return MapComparison(runs)


def _read(run: StoredRun) -> MapRun:
    """Read the counts of a run's images."""
    images, whole, classes, there = [], [], [], []
    for image_id, judged in run.predicted:
        value = image_iou(judged.pixels)
        images.append(image_id)
        whole.append(np.nan if value is None else value)
        classes.append(100 * by_class(judged.pixels)[0][:-1])
        there.append(judged.pixels.sum(1)[:-1] > 0)
    return MapRun(run, images, *map(np.array, (whole, classes, there)))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


@dataclass(frozen=True)
class MapComparison:
    """Runs by their label maps; see `base.ComparedRuns`."""

    runs: list[MapRun]

    @property
    def titles(self) -> list[str]:
        """Ground truth, each run, and the first one against each other one."""
        others = self.runs[1:]
        against = (f"Where {other.label} differs" for other in others)
        return [TRUTH, *(run.label for run in self.runs), *(against if others else ())]

    def about(self) -> tuple[str, str, str]:
        """Say what is compared, what its columns mean, and which images are shown."""
        first = self.runs[0]
        return (
            f"{first.stored.config.data.name}: label maps of {len(first.images)} images.",
            "Image IoU: the mean IoU of the classes that an image has, in truth or prediction, but "
            "background, in percent; here its mean, median and lowest over the images.",
            "The images on which the IoU of the runs differs most; the last panels show the pixels "
            "that two runs see differently, by who is right, but for those that nobody labelled.",
        )

    def summaries(self) -> list[dict[str, Any]]:
        """Return what each run reached altogether, by column."""
        return [run.summary() for run in self.runs]

    def remarks(self) -> list[str]:
        """Return nothing: no score decides what counts."""
        return []

    def pairs(self) -> Iterator[PairTable]:
        """Yield IoU of the first run beside that of each other one: of images, then by class."""
        first, *others = self.runs
        names = first.record["data"]["classes"]
        there = first.there.any(0)
        classes = np.flatnonzero(there) if len(names) > 1 else ()
        absent = int((~there).sum()) if len(names) > 1 else 0
        some = f"{absent} classes are" if absent > 1 else "1 class is"
        note = f"Of a class, images that show it count.{f' {some} on none.' if absent else ''}"
        for other in others:
            heads = ["IoU", "images", first.label, other.label, "difference",
                     f"better {first.label}", f"better {other.label}", "equal", "p"]  # fmt: skip
            rows = [_row("all", first.image_iou, other.image_iou)]
            rows += [
                _row(names[k], *(run.class_iou[first.there[:, k], k] for run in (first, other)))
                for k in classes
            ]
            yield PairTable(other.label, heads, rows, note * (len(names) > 1), TEST)

    def pictures(self, count: int, crops: int = 0) -> tuple[list[ImageRow], list[list[Any]]]:
        """Draw the images on which the IoU of the runs differs most; there is nothing to crop."""
        ious = np.array([run.image_iou for run in self.runs])
        spread = np.nan_to_num(ious.max(0) - ious.min(0))
        images = self.runs[0].images
        shown = [images[k] for k in np.argsort(-spread, kind="stable")[:count]]
        maps: dict[int, list[np.ndarray]] = {image_id: [] for image_id in shown}
        for run in self.runs:
            for image_id, judged in run.stored.predicted:
                if image_id in maps:
                    maps[image_id].append(judged.labels())
        records = {r.image_id: r for r in self.runs[0].stored.config.data.records("val")}
        rows = [ImageRow(records[i].file, self._panels(records[i], maps[i])) for i in shown]
        return rows, [[] for _ in self.runs[1:]]

    def _panels(self, record: Record, found: list[np.ndarray]) -> list[Image.Image]:
        """Draw truth, what each run says, and where the first differs from each other one."""
        data, labels = self.runs[0].stored.config.data, [run.label for run in self.runs]
        pixels, truth = data.image(record), data.label_map(record)
        for run, labelled in zip(self.runs, found, strict=True):
            seen = evaluation_geometry(run.stored.config.data, record).resized
            if labelled.shape not in (truth.shape, seen):
                raise Damaged(run.stored.predicted.path, f"{record.file} has another size")
        whole = Geometry(truth.shape, truth.shape)
        found = [x if x.shape == truth.shape else nearest(x, whole) for x in found]
        names = data.classes()
        there = [int(k) for k in np.unique(np.stack([truth, *found])) if k < len(names)]
        panels = [_panel(pixels, x, {k: names[k] for k in there}) for x in (truth, *found)]
        grey = np.repeat(pixels.mean(2, keepdims=True), 3, 2).astype(np.uint8)
        for label, other in zip(labels[1:], found[1:], strict=True):
            right = {ONLY_FIRST: labels[0], ONLY_OTHER: label}
            who = {k: f"right: {elided(name, NAMED)}" for k, name in right.items()}
            who |= {BOTH_WRONG: "neither"} if len(names) > 1 else {}
            panels.append(_panel(grey, disagreement(truth, found[0], other), who))
        return panels

    def lists(self) -> dict[str, str]:
        """Return IoU of every image and of every class, by run, as CSV files."""
        first = self.runs[0]
        data = first.stored.config.data
        files = {record.image_id: record.file for record in data.records("val")}
        images = [
            {"image_id": image_id, "file": files[image_id]}
            | {f"IoU {run.label}": _or_none(run.image_iou[k]) for run in self.runs}
            for k, image_id in enumerate(first.images)
        ]
        classes = [
            {"class": name, "images": int(first.there[:, k].sum())}
            | {f"IoU {run.label}": _mean(run.class_iou[run.there[:, k], k]) for run in self.runs}
            for k, name in enumerate(data.classes())
        ]
        tables = {"images.csv": images, "classes.csv": classes}
        return {name: csv_table(rows, list(rows[0])) for name, rows in tables.items() if rows}


def _panel(pixels: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> Image.Image:
    """Tint a picture and name colours below, the same below all panels of an image."""
    legend = [(name, colour(k)) for k, name in names.items()]
    return with_legend(tinted(pixels, labels, span=PANEL), legend)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _row(kind: str, a: np.ndarray, b: np.ndarray) -> list[str]:
    """Return a row of the table of two runs: the images on which both have an IoU. (N,)"""
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if not len(a):
        return [kind, "0", *["-"] * 7]
    difference = a - b
    counts = (difference > 0).sum(), (difference < 0).sum(), (difference == 0).sum()
    means = f"{a.mean():.2f}", f"{b.mean():.2f}", f"{difference.mean():+.2f}"
    return [kind, str(len(a)), *means, *map(str, counts), p_text(sign_flips(difference.tolist()).p)]


def disagreement(truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return who is right where two label maps differ, BACKGROUND elsewhere. (H, W) uint8"""
    differ = (a != b) & (truth != IGNORE)
    who = np.select([a == truth, b == truth], [ONLY_FIRST, ONLY_OTHER], BOTH_WRONG)
    return np.where(differ, who, BACKGROUND).astype(np.uint8)

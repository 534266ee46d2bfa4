"""Mask and box AP of 2,500 images with 20 objects and 25 predictions each, from RLE to numbers.

The evaluator of segsweep (hotcoco, fed image by image as in a run) against pycocotools (fed at
once). Medians of interleaved repetitions; both must give the same AP.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from functools import cache
from math import cos, pi, sin
from statistics import median
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.metrics.coco import CocoAP

IMAGES, OBJECTS, EXTRA, CLASSES = 2500, 20, 5, 8
HEIGHT, WIDTH = 480, 640
REPETITIONS = 3
Guesses = dict[int, list[dict[str, Any]]]


class Ellipses(DataSet):
    """Images of ellipses."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(name="ellipses")
        self.listed = records

    def classes(self) -> list[str]:
        return [f"class {k}" for k in range(CLASSES)]

    def records(self, split: str) -> list[Record]:
        return self.listed


def rows() -> list[dict[str, Any]]:
    ways: dict[str, Callable[[], float]] = {"segsweep": by_segsweep, "pycocotools": by_pycocotools}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    values: dict[str, float] = {}
    synthetic()
    for _ in range(REPETITIONS):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            values[name] = way()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    assert abs(values["segsweep"] - values["pycocotools"]) < 1e-6, values
    return [
        {
            "evaluator": name,
            "seconds": median(wall for wall, _ in pairs),
            "CPU seconds": median(cpu for _, cpu in pairs),
            "mask AP": values[name],
        }
        for name, pairs in times.items()
    ]


@cache
def synthetic() -> tuple[list[Record], Guesses]:
    """Return records, and predictions that are shifted copies of them and some inventions."""
    random = np.random.default_rng(0)
    records: list[Record] = []
    guesses: Guesses = {}
    for image_id in range(1, IMAGES + 1):
        record = Record(image_id, "", HEIGHT, WIDTH, [])
        shapes = random.uniform([0, 0, 5, 5], [WIDTH, HEIGHT, 60, 60], (OBJECTS + EXTRA, 4))
        category = random.integers(0, CLASSES, OBJECTS + EXTRA).tolist()
        for number in range(OBJECTS):
            rle = ellipse(shapes[number])
            box, area = masks.bbox(rle), float(masks.area(rle))
            record.annotations.append(Annotation(category[number], rle, box, area, id=number))
        shifted = shapes + random.normal(0, 0.08, shapes.shape) * shapes[:, [2, 3, 2, 3]]
        guesses[image_id] = [
            {
                "category_id": kind,
                "score": random.random(),
                "segmentation": (rle := ellipse(shape)),
                "bbox": masks.bbox(rle),
            }
            for kind, shape in zip(category, shifted, strict=True)
        ]
        records.append(record)
    return records, guesses


def ellipse(shape: np.ndarray) -> dict[str, Any]:
    """Return the RLE of an ellipse (x, y, two half axes)."""
    x, y, a, b = shape
    turns = [2 * pi * k / 24 for k in range(24)]
    polygon = [v for t in turns for v in (x + a * cos(t), y + b * sin(t))]
    return masks.to_rle([polygon], (HEIGHT, WIDTH))


def by_segsweep() -> float:
    """Return mask AP from our evaluator."""
    records, guesses = synthetic()
    evaluator = CocoAP(name="coco").evaluator(Ellipses(records), "val")
    for record in records:
        evaluator.add(record.image_id, guesses[record.image_id])
    return evaluator.compute()["segm_AP"] or 0.0


def by_pycocotools() -> float:
    """Return mask AP from pycocotools, which evaluates boxes as well."""
    records, guesses = synthetic()
    truth = [
        {**vars(a), "category_id": a.category, "image_id": r.image_id, "iscrowd": 0}
        for r in records
        for a in r.annotations
    ]
    predictions = [{**g, "image_id": image_id} for image_id, gs in guesses.items() for g in gs]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": r.image_id, "height": HEIGHT, "width": WIDTH} for r in records],
            "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)],
            "annotations": [{**a, "id": number} for number, a in enumerate(truth, start=1)],
        }
        gt.createIndex()
        stats = {}
        for kind, other in (("bbox", "segmentation"), ("segm", "bbox")):
            dt = gt.loadRes([{k: v for k, v in g.items() if k != other} for g in predictions])
            evaluation = COCOeval(gt, dt, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats[kind] = evaluation.stats
    return 100 * float(stats["segm"][0])


def main() -> None:
    for row in rows():
        print(row)


if __name__ == "__main__":
    main()

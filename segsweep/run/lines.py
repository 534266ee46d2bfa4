"""What a line of a file of predictions holds: the objects of an image, or its label map.

Schema 1    {"image_id": 7, "size": [h, w],
             "found": [[category, score, [x, y, w, h], "RLE counts"], ...]}

    the instances best first; `size` is null where there are none.

Schema 2    {"image_id": 7, "size": [h, w], "map": "base64 of zlib of h w bytes",
             "pixels": [[true, predicted, number], ...], "measures": {"S": [0.91], ...}}

    `map` is the label map row by row, a byte a pixel: a class, or 254 where none is. `pixels` are
    numbers of labelled ones by true and predicted value, so that IoU and confusion follow without
    the map. `measures` are what the run's metric made of scores, which are not kept; null is no
    number.

Schema 3    {"image_id": 7, "found": [[category, score, [x, y, w, h]], ...]}

    the instances of a model that finds boxes alone, best first.

Schema 4    {"image_id": 7, "class": 3, "score": 0.91}

    the best class of a picture as a whole, and its probability.

Classes are contiguous (0..K-1). Nothing here imports torch.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segsweep.base.errors import Damaged
from segsweep.data.base import BACKGROUND
from segsweep.metrics.label_maps import JudgedMap

SIDE, VALUE = range(1, 2**16), range(BACKGROUND + 1)
Found = list[dict[str, Any]]
"""Instances of one image, best first: category_id, score, bbox [x, y, w, h], segmentation (RLE).

Boxes alone have no segmentation.
"""


class LineForm(NamedTuple):
    """How what is found on an image becomes a line, and a line what was found.

    `read` takes in the number of classes and the file, too, and raises ValueError or TypeError for
    what cannot be.
    """

    shape: dict[str, Any]
    write: Callable[[Any], dict[str, Any]]
    read: Callable[[dict[str, Any], int, Path], Any]


def of_objects(found: Found) -> dict[str, Any]:
    """Return the line of instances in the COCO form."""
    size = found[0]["segmentation"]["size"] if found else None
    instances = [
        (entry["category_id"], entry["score"], entry["bbox"], entry["segmentation"]["counts"])
        for entry in found
    ]
    return {"size": size, "found": instances}


def objects(line: dict[str, Any], classes: int, path: Path) -> Found:
    """Return the instances of a line in the COCO form."""
    from segsweep.data.formats import masks

    found = [
        {
            "category_id": category,
            "score": score,
            "bbox": box,
            "segmentation": {"size": line["size"], "counts": counts},
        }
        for category, score, box, counts in line["found"]
    ]
    for instance in found:
        masks.area(instance["segmentation"])
    return found


def of_boxes(found: Found) -> dict[str, Any]:
    """Return the line of boxes alone in the COCO form."""
    return {"found": [(x["category_id"], x["score"], x["bbox"]) for x in found]}


def boxes(line: dict[str, Any], classes: int, path: Path) -> Found:
    """Return the boxes of a line in the COCO form."""
    return [
        {"category_id": category, "score": score, "bbox": box}
        for category, score, box in line["found"]
    ]


def of_label(best: tuple[int, float]) -> dict[str, Any]:
    """Return the line of the class of a picture."""
    return {"class": best[0], "score": best[1]}


def label(line: dict[str, Any], classes: int, path: Path) -> tuple[int, float]:
    """Return the class of a picture of a line, and its score."""
    if line["class"] >= classes:
        raise ValueError(f"has class {line['class']}, beyond the {classes} of the data")
    return line["class"], line["score"]


def of_map(judged: JudgedMap) -> dict[str, Any]:
    """Return the line of a label map."""
    labels = np.ascontiguousarray(judged.labels())
    there = np.argwhere(judged.pixels)
    values = np.where(there < len(judged.pixels) - 1, there, BACKGROUND)
    numbers = judged.pixels[tuple(there.T)]
    return {
        "size": list(labels.shape),
        "map": base64.b64encode(zlib.compress(labels.data, 9)).decode(),
        "pixels": np.column_stack([values, numbers]).tolist(),
        "measures": {
            name: [value if isfinite(value) else None for value in map(float, values)]
            for name, values in judged.measures.items()
        },
    }


def label_map(line: dict[str, Any], classes: int, path: Path) -> JudgedMap:
    """Return the label map of a line, unpacked when it is asked for."""
    pixels = np.zeros((classes + 1, classes + 1), np.int64)
    for *values, number in line["pixels"]:
        if strange := [v for v in values if classes <= v != BACKGROUND]:
            raise ValueError(f"has pixels of class {strange[0]}, beyond the {classes} of the data")
        true, predicted = (min(v, classes) for v in values)
        pixels[true, predicted] += number
    measures = {
        name: [nan if value is None else value for value in values]
        for name, values in line["measures"].items()
    }
    return JudgedMap(partial(unpacked, line, classes, path), pixels, measures)


def unpacked(line: dict[str, Any], classes: int, path: Path) -> np.ndarray:
    """Return the label map of a line. -> (H, W) uint8. Raises Damaged for anything else."""
    height, width = line["size"]
    try:
        packed, stream = base64.b64decode(line["map"], validate=True), zlib.decompressobj()
        content = stream.decompress(packed, height * width + 1)  # no more than fits
        if not stream.eof:
            raise ValueError("it does not end")
        labels = np.frombuffer(content, np.uint8).reshape(height, width)
    except (ValueError, zlib.error) as error:
        raise Damaged(path, f"image {line['image_id']}: no label map ({error})") from error
    if ((labels >= classes) & (labels != BACKGROUND)).any():
        raise Damaged(path, f"image {line['image_id']}: classes beyond the {classes} of the data")
    return labels


BOXES = 3  # the schema of boxes alone
FORMS = {
    1: LineForm(
        {
            "image_id": int,
            "size": ([SIDE, SIDE], None),
            "found": [[range(2**16), float, [float] * 4, str]],
        },
        of_objects,
        objects,
    ),
    2: LineForm(
        {
            "image_id": int,
            "size": [SIDE, SIDE],
            "map": str,
            "pixels": [[VALUE, VALUE, range(1, 10**12)]],
            "measures": {...: [float | None]},
        },
        of_map,
        label_map,
    ),
    BOXES: LineForm(
        {"image_id": int, "found": [[range(2**16), float, [float] * 4]]},
        of_boxes,
        boxes,
    ),
    4: LineForm({"image_id": int, "class": range(2**16), "score": float}, of_label, label),
}
"""By the schema of the file."""

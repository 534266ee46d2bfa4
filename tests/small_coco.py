"""A COCO data set of two pictures with known pixels, and the small real sets of `tests/data`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.data.sets.coco import Coco

REAL = Path(__file__).parents[1] / os.environ.get("SEGSWEEP_DATA", "tests/data")
REAL_SETS = ["rice_leaf", "nuclei", "coco_tiny"]
HEIGHT, WIDTH = 48, 64
BLOCK = [10, 8, 40, 8, 40, 30, 10, 30]  # polygon of pixels [8:30, 10:40]


def real_folder(name: str) -> Path:
    """The folder of a real set, or of a structural sample of one; a skipped test without it."""
    if not (REAL / name).is_dir():
        pytest.skip(f"no data at {REAL / name}; name their folder with SEGSWEEP_DATA")
    return REAL / name


def real(name: str, **options: Any) -> Coco:
    """A real set, or a skipped test."""
    return Coco(name="coco", root=str(real_folder(name)), **options)


def content() -> dict[str, list[dict[str, Any]]]:
    """Two images with one block each; category ids have a gap and are not in order."""
    block = {"segmentation": [BLOCK], "bbox": [10, 8, 30, 22], "area": 660, "iscrowd": 0}
    return {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in ((7, "first.png"), (3, "sub/second.png"))
        ],
        "categories": [{"id": 9, "name": "bolt"}, {"id": 4, "name": "nut"}],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 9, **block},
            {"id": 12, "image_id": 3, "category_id": 4, **block},
        ],
    }


def write(
    folder: Path,
    train: Any = None,
    val: Any = None,
    pixels: np.ndarray | None = None,
    **options: Any,
) -> Coco:
    """Write a set; `train` and `val` are contents, text, or None for the default content."""
    if pixels is None:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[8:30, 10:40] = 255
    (folder / "images/sub").mkdir(parents=True)
    for name in ("first.png", "sub/second.png"):
        Image.fromarray(pixels).save(folder / "images" / name)
    for split, what in {"train": train, "val": val}.items():
        text = what if isinstance(what, str) else json.dumps(what or content())
        (folder / f"{split}.json").write_text(text)
    return Coco(name="coco", root=str(folder), **options)

"""What a run found on a folder of pictures: overlays, COCO files or label maps, and a page.

OUT/index.html        all overlays
OUT/overlays/...      a drawing of each picture
OUT/predictions.json  what was found, in the form of COCO results
OUT/images.json       pictures and categories of these results, as a COCO file
OUT/labels/...        in place of results, for label maps: PNG, values are places of classes
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.data.base import BACKGROUND
from segsweep.pages.colours import palette
from segsweep.pages.draw import Shape, overlay, tinted
from segsweep.pages.page import render

if TYPE_CHECKING:
    from segsweep.run.restore import Restored
    from segsweep.task.instances import Instances
    from segsweep.task.semantic import SemanticMap

PHOTOS = (".jpg", ".jpeg")  # are drawn as what they are, all else as PNG


@dataclass
class Gallery:
    """Takes in pictures one by one; what is found with less than `threshold` is left out.

    `category_ids` are the ids that results name each class by.
    """

    restored: Restored
    place: Path
    out: Path
    threshold: float
    category_ids: list[int]
    pictures: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    stems: set[Path] = field(default_factory=set)  # of the files written

    def __post_init__(self) -> None:
        """Make the folder. Raises UserError where that fails."""
        try:
            (self.out / "overlays").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"out={self.out}: {error.strerror}") from error

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.restored.record["data"]["classes"]

    @property
    def semantic(self) -> bool:
        """Whether the run predicts label maps."""
        return self.restored.config.data.task == "semantic"

    def add(self, number: int, path: Path, pixels: np.ndarray, found: Any) -> None:
        """Draw and keep what was found on one picture (H, W, 3) uint8."""
        name = path.relative_to(self.place) if path != self.place else Path(path.name)
        stem = name.with_suffix("")
        stem = name if stem in self.stems else stem  # a.jpg beside a.png
        self.stems.add(stem)
        drawing = self._path("overlays", stem, ".jpg" if path.suffix.lower() in PHOTOS else ".png")
        if self.semantic:
            picture, told = self._labels(stem, pixels, found)
        else:
            picture, told = self._objects(number, name, pixels, found)
        picture.save(drawing, quality=90)
        entry = {"id": number, "file_name": name.as_posix()}
        entry |= {"height": pixels.shape[0], "width": pixels.shape[1]}
        shown = drawing.relative_to(self.out).as_posix()
        self.pictures.append({"coco": entry, "drawing": shown, "told": told})

    def _objects(
        self, number: int, name: Path, pixels: np.ndarray, found: Instances
    ) -> tuple[Image.Image, str]:
        """Keep instances; return the drawing and what is said below it."""
        kept = [one for one in found.coco if one["score"] >= self.threshold]
        for one in kept:
            own = {"category_id": self.category_ids[one["category_id"]]}
            self.results.append({"image_id": number, "file_name": name.as_posix(), **one, **own})
        told: dict[str, list[float]] = {}
        for one in kept:
            told.setdefault(self.classes[one["category_id"]], []).append(one["score"])
        shapes = [
            Shape(one["category_id"], one["segmentation"], label(self.classes, one)) for one in kept
        ]
        counts = [f"{len(scores)} {name} ({span(scores)})" for name, scores in told.items()]
        return overlay(pixels, shapes), ", ".join(counts) or "nothing"

    def _labels(
        self, stem: Path, pixels: np.ndarray, found: SemanticMap
    ) -> tuple[Image.Image, str]:
        """Write a label map; return the drawing and what is said below it."""
        labels = found.label_map(self.restored.background).cpu().numpy()
        image = Image.fromarray(labels)
        image.putpalette(palette())
        image.save(self._path("labels", stem, ".png"))
        shares = np.bincount(labels.ravel(), minlength=256)[:BACKGROUND] / labels.size
        order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k]]
        told = ", ".join(f"{self.classes[k]} {100 * shares[k]:.1f} %" for k in order)
        return tinted(pixels, labels, self.classes), told or "background only"

    def _path(self, folder: str, stem: Path, suffix: str) -> Path:
        """Return where a file of a picture goes, in a folder that exists."""
        path = self.out / folder / f"{stem}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close(self, skipped: Mapping[Path, str]) -> Iterator[Path]:
        """Write what regards all pictures; yield the paths."""
        record = self.restored.record
        known = {
            "info": {"run": record["id"], "threshold": self.threshold},
            "images": [one["coco"] for one in self.pictures],
            "categories": [
                {"id": i, "name": name}
                for i, name in zip(self.category_ids, self.classes, strict=True)
            ],
            "annotations": [],
        }
        texts = {"images.json": json.dumps(known, indent=1)}
        if not self.semantic:
            texts["predictions.json"] = json.dumps(self.results)
        texts["index.html"] = render("gallery.html", gallery=self, record=record, skipped=skipped)
        for name, text in texts.items():
            write_text(self.out / name, text)
            yield self.out / name


def label(classes: list[str], one: dict[str, Any]) -> str:
    """Return what stands beside an object: its class, if there are several, and its score."""
    score = f" {one['score']:.2f}" if "score" in one else ""
    return (score if len(classes) == 1 else classes[one["category_id"]] + score).strip()


def span(scores: list[float]) -> str:
    """Return the scores of a class in short."""
    low, high = f"{min(scores):.2f}", f"{max(scores):.2f}"
    return low if low == high else f"{low} to {high}"

"""What is found on pictures, by its kind: how it is drawn, put in words and kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from segsweep.base.files import file_name, write_atomically
from segsweep.data.base import BACKGROUND
from segsweep.pages.outlines import Outline, outlined
from segsweep.pages.painter import overlay, tinted, with_legend
from segsweep.pages.palette import colour, palette

if TYPE_CHECKING:
    from segsweep.data.folder import Shot
    from segsweep.model.found import Instances, SemanticMap

Values = dict[str, list[float]]
"""By class: the score of each object, or the share of pixels in each picture."""


class ResultForm(Protocol):
    """How one kind of result is drawn, told and kept."""

    heads: ClassVar[tuple[str, ...]]
    """Of the columns that `cells` fills."""

    @property
    def folders(self) -> list[str]:
        """Names of the folders that it fills."""
        ...

    def draw(self, shot: Shot, stem: Path, result: Any) -> tuple[Image.Image, Values]:
        """Keep a result, in files whose names begin so; return its drawing and what it is."""
        ...

    def words(self, values: Values, pictures: int) -> str:
        """Say what was found on a file of so many pictures."""
        ...

    def cells(self, values: Values, pictures: int) -> list[str]:
        """Return the same in short, as a row of a table."""
        ...

    def total(self, values: Values, pictures: int) -> str:
        """Say what was found on all pictures."""
        ...

    def summary(self) -> str:
        """Say what is kept."""
        ...

    def hint(self) -> str:
        """Say what to try where nothing was found."""
        ...

    def texts(self) -> dict[str, str]:
        """Return the files that regard all pictures, by name."""
        ...


@dataclass
class InstanceForm:
    """Objects from a score on: outlines of masks or of boxes, and COCO results.

    The latter name classes by `category_ids`.

    With a folder of `crops` each object is cut out, into the folder of its class.
    """

    heads: ClassVar[tuple[str, ...]] = ("objects", "best score", "classes")

    classes: list[str]
    category_ids: list[int]
    threshold: float
    crops: Path | None = None
    masks: bool = True  # else they are boxes alone
    results: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, str] = (0.0, "")  # of all that were seen: score, and what it is

    @property
    def folders(self) -> list[str]:
        """Return the one of the crops, if they are wanted and there are any."""
        return [self.crops.name] if self.crops and self.results else []

    def draw(self, shot: Shot, stem: Path, result: Instances) -> tuple[Image.Image, Values]:
        """Draw the objects from the threshold on, and keep them as COCO results."""
        outlines: list[Outline] = []
        scores: Values = {}
        for x in result.coco:
            name = self.classes[x["category_id"]]
            self.best = max(self.best, (x["score"], f"{name} on {shot.name}"))
            if x["score"] < self.threshold:
                continue
            head = {"image_id": shot.image_id, "file_name": shot.name}
            self.results.append(head | x | {"category_id": self.category_ids[x["category_id"]]})
            scores.setdefault(name, []).append(x["score"])
            outlines.append(outlined(self.classes, x))
            if self.crops:
                cut = self.crops / file_name(name) / f"{stem}-{len(outlines)}.png"
                save_crop(shot.pixels, x["bbox"], cut)
        return overlay(shot.pixels, outlines), scores

    def words(self, values: Values, pictures: int) -> str:
        """Say how many objects there are of each class, and how sure they are."""
        texts = [f"{len(own)} {name} ({span(own)})" for name, own in values.items()]
        return ", ".join(texts) or "nothing"

    def cells(self, values: Values, pictures: int) -> list[str]:
        """Return number, best score and classes of objects."""
        scores = [score for own in values.values() for score in own]
        best = f"{max(scores):.2f}" if scores else "-"
        return [str(len(scores)), best, counts(values, 5) if scores else "-"]

    def total(self, values: Values, pictures: int) -> str:
        """Say how many objects there are of each class, on how many pictures."""
        number = sum(map(len, values.values()))
        hits = len({x["image_id"] for x in self.results})
        there = f"{hits} of {pictures} pictures" if pictures > 1 else "1 picture"
        found = f"{number} object{'s' * (number != 1)} on {there}"
        return f"{found}: {counts(values, 10)}" if number else found

    def summary(self) -> str:
        """Say which objects are kept."""
        boxes = "" if self.masks else ", as boxes: this model finds no masks"
        return f"Objects of score {self.threshold:.2f} and more{boxes}"

    def hint(self) -> str:
        """Say which threshold would have found something."""
        score, what = self.best
        least = floor(1e4 * score) / 1e4
        if self.results or not least:
            return ""
        return (
            f"Nothing has the score {self.threshold:.2f}; the highest is {score:.4f} ({what}): "
            f"try threshold={least:g}"
        )

    def texts(self) -> dict[str, str]:
        """Return the COCO results."""
        return {"predictions.json": json.dumps(self.results)}


@dataclass
class LabelMapForm:
    """Label maps: tinted pictures, and a PNG file of classes for each in `folder`."""

    heads: ClassVar[tuple[str, ...]] = ("shares of pixels",)

    classes: list[str]
    background: bool  # pixels may be of no class
    folder: Path

    @property
    def folders(self) -> list[str]:
        """Return that of the label maps."""
        return [self.folder.name]

    def draw(self, shot: Shot, stem: Path, result: SemanticMap) -> tuple[Image.Image, Values]:
        """Write a label map and tint it."""
        labels = result.label_map(self.background).cpu().numpy()
        image = Image.fromarray(labels)
        image.putpalette(palette())
        path = made(self.folder / f"{stem}.png")
        write_atomically(path, lambda file: image.save(file, "PNG"))
        parts = np.bincount(labels.ravel(), minlength=256)[:BACKGROUND] / labels.size
        values = {self.classes[k]: [float(parts[k])] for k in np.flatnonzero(parts)}
        if shot.frame is None:
            return tinted(shot.pixels, labels, self.classes), values
        legend = [(name, colour(k)) for k, name in enumerate(self.classes)]
        return with_legend(tinted(shot.pixels, labels), legend), values  # one size for all of them

    def words(self, values: Values, pictures: int) -> str:
        """Say which part of all pixels each class has, a mean over pictures."""
        return shares(values, pictures, len(self.classes))

    def cells(self, values: Values, pictures: int) -> list[str]:
        """Return the shares of the largest classes."""
        return [shares(values, pictures, 5)]

    def total(self, values: Values, pictures: int) -> str:
        """Say which part of all pictures the largest classes have."""
        return f"{pictures} picture{'s' * (pictures != 1)}: {shares(values, pictures, 10)}"

    def summary(self) -> str:
        """Say what the files hold."""
        return f"The class of each pixel is in the folder {self.folder.name}"

    def hint(self) -> str:
        """Return nothing: each pixel keeps its class, however sure it is."""
        return ""

    def texts(self) -> dict[str, str]:
        """Return nothing: each picture has its file."""
        return {}


def save_crop(pixels: np.ndarray, box: list[float], path: Path) -> None:
    """Write the part of a picture (H, W, 3) inside a box [x, y, w, h], if there is any, as PNG."""
    height, width, _ = pixels.shape
    left, top = max(0, floor(box[0])), max(0, floor(box[1]))
    right, bottom = min(width, ceil(box[0] + box[2])), min(height, ceil(box[1] + box[3]))
    if left < right and top < bottom:
        image = Image.fromarray(pixels[top:bottom, left:right])
        write_atomically(made(path), lambda file: image.save(file, "PNG"))


def made(path: Path) -> Path:
    """Return a path whose folder exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def span(scores: list[float]) -> str:
    """Return the scores of a class in short."""
    low, high = f"{min(scores):.2f}", f"{max(scores):.2f}"
    return low if low == high else f"{low} to {high}"


def counts(values: Values, most: int) -> str:
    """Return how many objects there are of the most frequent classes."""
    numbers = Counter({name: len(own) for name, own in values.items()}).most_common()
    return shortened([f"{number} {name}" for name, number in numbers], most)


def shares(values: Values, pictures: int, most: int) -> str:
    """Return the shares of the largest classes, as means over pictures."""
    means = Counter({name: sum(own) / pictures for name, own in values.items()}).most_common()
    return shortened([f"{name} {100 * s:.1f} %" for name, s in means], most) or "background only"


def shortened(texts: list[str], most: int) -> str:
    """Return the first of some texts, and how many more there are."""
    more = [f"{len(texts) - most} more"] if len(texts) > most + 1 else []
    return ", ".join((texts[:most] if more else texts) + more)

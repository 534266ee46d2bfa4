"""What a run finds on a folder of pictures: overlays, COCO files or label maps, and a page.

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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically, write_text
from segsweep.base.shell import render
from segsweep.data import folder
from segsweep.data.base import BACKGROUND
from segsweep.pages.painter import Outline, label, overlay, tinted
from segsweep.pages.palette import palette

if TYPE_CHECKING:
    from segsweep.run.restore import Restored
    from segsweep.task.instances import Instances
    from segsweep.task.semantic import SemanticMap

PHOTOS = (".jpg", ".jpeg")  # are drawn as what they are, all else as PNG


@dataclass(frozen=True)
class Shot:
    """One picture of the folder: its entry in a COCO file, its path without suffix, its pixels."""

    entry: dict[str, Any]
    stem: Path
    pixels: np.ndarray  # (H, W, 3) uint8


class ResultForm(Protocol):
    """How one kind of result is drawn and kept."""

    def draw(self, shot: Shot, result: Any) -> tuple[Image.Image, str]:
        """Keep a result; return its drawing and what is said below it."""
        ...

    def summary(self) -> str:
        """Say what all results are."""
        ...

    def texts(self) -> dict[str, str]:
        """Return the files that regard all pictures, by name."""
        ...


@dataclass
class InstanceForm:
    """Objects: outlines, and COCO results that name classes by `category_ids`."""

    classes: list[str]
    category_ids: list[int]
    threshold: float
    results: list[dict[str, Any]] = field(default_factory=list)

    def draw(self, shot: Shot, result: Instances) -> tuple[Image.Image, str]:
        """Draw the objects from the threshold on; their scores by class stand below."""
        instances = [x for x in result.coco if x["score"] >= self.threshold]
        head = {"image_id": shot.entry["id"], "file_name": shot.entry["file_name"]}
        scores: dict[str, list[float]] = {}
        for x in instances:
            self.results.append(head | x | {"category_id": self.category_ids[x["category_id"]]})
            scores.setdefault(self.classes[x["category_id"]], []).append(x["score"])
        outlines = [
            Outline(x["category_id"], x["segmentation"], label(self.classes, x)) for x in instances
        ]
        counts = [f"{len(values)} {name} ({span(values)})" for name, values in scores.items()]
        return overlay(shot.pixels, outlines), ", ".join(counts) or "nothing"

    def summary(self) -> str:
        """Say how many objects there are."""
        return f"{len(self.results)} objects of score {self.threshold} and more"

    def texts(self) -> dict[str, str]:
        """Return the COCO results."""
        return {"predictions.json": json.dumps(self.results)}


@dataclass
class LabelMapForm:
    """Label maps: tinted pictures, and a PNG file of classes for each in `folder`."""

    classes: list[str]
    background: bool  # pixels may be of no class
    folder: Path

    def draw(self, shot: Shot, result: SemanticMap) -> tuple[Image.Image, str]:
        """Write a label map and tint it; the shares of its classes stand below."""
        labels = result.label_map(self.background).cpu().numpy()
        image = Image.fromarray(labels)
        image.putpalette(palette())
        path = made(self.folder / f"{shot.stem}.png")
        write_atomically(path, lambda file: image.save(file, "PNG"))
        shares = np.bincount(labels.ravel(), minlength=256)[:BACKGROUND] / labels.size
        order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k]]
        text = ", ".join(f"{self.classes[k]} {100 * shares[k]:.1f} %" for k in order)
        return tinted(shot.pixels, labels, self.classes), text or "background only"

    def summary(self) -> str:
        """Say what the files hold."""
        return f"The class of each pixel is in the folder {self.folder.name}"

    def texts(self) -> dict[str, str]:
        """Return nothing: each picture has its file."""
        return {}


@dataclass
class Gallery:
    """Takes in pictures one by one, drawn and kept in the form of their kind of result."""

    run: str
    place: Path
    out: Path
    form: ResultForm
    pictures: list[dict[str, Any]] = field(default_factory=list)
    stems: set[Path] = field(default_factory=set)  # of the files written

    def add(self, image_id: int, path: Path, pixels: np.ndarray, result: Any) -> None:
        """Draw and keep what was found on one picture (H, W, 3) uint8."""
        name = path.relative_to(self.place) if path != self.place else Path(path.name)
        stem = name.with_suffix("")
        stem = name if stem in self.stems else stem  # a.jpg beside a.png
        self.stems.add(stem)
        suffix = ".jpg" if path.suffix.lower() in PHOTOS else ".png"
        entry = {"id": image_id, "file_name": name.as_posix()}
        entry |= {"height": pixels.shape[0], "width": pixels.shape[1]}
        picture, caption = self.form.draw(Shot(entry, stem, pixels), result)
        drawing = Path("overlays") / f"{stem}{suffix}"
        kind = "JPEG" if suffix == ".jpg" else "PNG"
        path = made(self.out / drawing)
        write_atomically(path, lambda file: picture.save(file, kind, quality=90))
        self.pictures.append({"coco": entry, "drawing": drawing.as_posix(), "caption": caption})

    def close(self, known: dict[str, Any], skipped: Mapping[Path, str]) -> Iterator[Path]:
        """Write what regards all pictures, `known` is said in images.json; yield the paths."""
        images = known | {"images": [p["coco"] for p in self.pictures], "annotations": []}
        texts = self.form.texts() | {"images.json": json.dumps(images, indent=1)}
        page = render("pages/gallery.html", gallery=self, files=list(texts), skipped=skipped)
        for name, text in (texts | {"index.html": page}).items():
            write_text(self.out / name, text)
            yield self.out / name


def predict_folder(
    directory: Path,
    place: Path,
    out: Path,
    threshold: float,
    words: list[str],
    annotations: Path | None = None,
) -> Iterator[str]:
    """Predict on every picture below a folder, and draw what is found; yield what to tell of it.

    Or on those of an annotation file: with its ids and in its order, so that batches are those of
    an evaluation. Without one, ids count the files. Raises UserError where there is no picture, and
    whatever keeps the model from being restored.
    """
    from segsweep.base.terminal import watched
    from segsweep.run.evaluate import predict_batches
    from segsweep.run.restore import finished, restore

    paths = folder.files(place, out)
    data = finished(directory, words)[1]["data"]
    records, category_ids = {}, data["category_ids"]
    if annotations:  # before the model is built
        file = folder.opened(annotations)
        records, remarks = folder.records(file, place, paths)
        category_ids, lacking = folder.category_ids(file, data)
        yield from (*remarks, *lacking)
        paths = [*records]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from error
    restored = restore(directory, words=words)
    form = result_form(restored, category_ids, threshold, out)
    gallery = Gallery(restored.record["name"], place, out, form)
    config = restored.config
    levels = folder.Levels(**data["levels"]) if data.get("levels") else None
    pictures = folder.Folder(paths, config.data, config.hparams.batch_size, records, levels)
    batches = watched(pictures, len(pictures), place.name)
    for batch, results in predict_batches(config, restored.model, batches, threshold):
        for number, result in zip(batch.image_ids, results, strict=True):
            path = paths[number - 1]
            image_id = records[path].image_id if path in records else number
            gallery.add(image_id, path, pictures.pixels[number], result)
    yield from (f"skipped {path}: {reason}" for path, reason in pictures.skipped.items())
    if not gallery.pictures:
        raise UserError(f"images={place}: none of {len(paths)} files is a picture")
    known = {
        "info": {"run": restored.record["id"], "threshold": threshold},
        "categories": [
            {"id": i, "name": n} for i, n in zip(category_ids, data["classes"], strict=True)
        ],
    }
    yield from (f"wrote {path}" for path in gallery.close(known, pictures.skipped))


def result_form(
    restored: Restored, category_ids: list[int], threshold: float, out: Path
) -> ResultForm:
    """Return the form of what a run finds: of objects where its predictions are kept as such."""
    from segsweep.task.base import task_of

    classes = restored.record["data"]["classes"]
    if task_of(restored.config.data).kept:
        return InstanceForm(classes, category_ids, threshold)
    return LabelMapForm(classes, restored.background, out / "labels")


def made(path: Path) -> Path:
    """Return a path whose folder exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def span(scores: list[float]) -> str:
    """Return the scores of a class in short."""
    low, high = f"{min(scores):.2f}", f"{max(scores):.2f}"
    return low if low == high else f"{low} to {high}"

"""What a run finds on pictures of anybody: drawings, COCO files or label maps, and a page.

OUT/index.html        all drawings
OUT/overlays/...      a drawing of each picture or video
OUT/predictions.json  what was found, in the form of COCO results
OUT/images.json       pictures and categories of these results, as a COCO file
OUT/labels/...        in place of results, for label maps: PNG, values are places of classes
OUT/crops/CLASS/...   on request: each object, cut out
OUT/downloads/...     pictures from addresses
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import Damaged, atomically, read_json, write_text
from segsweep.base.shell import render
from segsweep.base.terminal import aligned
from segsweep.data import annotated, video
from segsweep.data.folder import Folder, Shot
from segsweep.data.inputs import VIDEOS, InputFile, Inputs
from segsweep.pages.forms import result_form
from segsweep.pages.found import ResultForm, Values, made

if TYPE_CHECKING:
    from PIL import Image

    from segsweep.run.restore import Restored

PHOTOS = (".jpg", ".jpeg")  # are drawn as what they are, all else as PNG
OWN = {"info": {"run": str}}  # what images.json has, as nobody else's
FIRST = 10  # pictures, and files skipped, that the terminal shows


@dataclass
class Drawn:
    """A picture or video of the page: its drawing, and all that was found on it."""

    file: InputFile
    drawing: Path
    images: list[dict[str, Any]] = field(default_factory=list)  # of a COCO file
    values: Values = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name; of a video also how many pictures it has."""
        name = self.file.name.as_posix()
        return f"{name}, {len(self.images)} pictures" if self.file.is_video else name

    @property
    def facts(self) -> str:
        """Ids and size in words."""
        first, last = self.images[0], self.images[-1]
        ids = f"id {first['id']}" + (f" to {last['id']}" if last is not first else "")
        return f"{ids}, {first['width']} × {first['height']}"


@dataclass
class Gallery:
    """Takes in files one by one, drawn and kept in the form of their kind of result."""

    run: str
    title: str
    out: Path
    form: ResultForm
    every: int = 1
    drawn: list[Drawn] = field(default_factory=list)
    stems: set[Path] = field(default_factory=set)  # of the files written

    def add(self, file: InputFile, found: Iterator[tuple[Shot, Any]]) -> None:
        """Draw and keep what was found on the pictures of one file."""
        name = file.name
        stem = name if name.with_suffix("") in self.stems else name.with_suffix("")  # a.jpg, a.png
        self.stems.add(stem)
        photo = name.suffix.lower() in PHOTOS
        suffix = ".mp4" if file.is_video else ".jpg" if photo else ".png"
        own = Drawn(file, Path("overlays") / f"{stem}{suffix}")
        pictures = (self._picture(own, stem, shot, result) for shot, result in found)
        with atomically(made(self.out / own.drawing)) as path:
            if file.is_video:
                with video.writing(path, video.extent(file.path)[1] / self.every) as write:
                    for picture in pictures:
                        write(picture)
            else:
                next(pictures).save(path, "JPEG" if photo else "PNG", quality=90)
        self.drawn.append(own)

    def _picture(self, own: Drawn, stem: Path, shot: Shot, result: Any) -> Image.Image:
        """Return the drawing of one picture, which is added to what its file has."""
        height, width, _ = shot.pixels.shape
        image = {"id": shot.image_id, "file_name": shot.name, "height": height, "width": width}
        if shot.frame is not None:
            image |= {"frame": shot.frame, "seconds": shot.seconds}
            stem = stem / f"{shot.frame:06}"
        picture, values = self.form.draw(shot, stem, result)
        own.images.append(image)
        gather(own.values, values)
        return picture

    @property
    def images(self) -> list[dict[str, Any]]:
        """All pictures, as a COCO file lists them."""
        return [image for own in self.drawn for image in own.images]

    def words(self, own: Drawn) -> str:
        """Say what was found on a picture or video."""
        return self.form.words(own.values, len(own.images))

    def total(self) -> str:
        """Say what was found on all pictures."""
        values: Values = {}
        for own in self.drawn:
            gather(values, own.values)
        return self.form.total(values, len(self.images))

    def lines(self) -> Iterator[str]:
        """Yield what a terminal shows: the first pictures and videos, and the total."""
        rows = [
            [own.name, *self.form.cells(own.values, len(own.images))] for own in self.drawn[:FIRST]
        ]
        yield from aligned([["picture", *self.form.heads], *rows])
        yield from remaining(self.drawn)
        yield self.total()
        yield from filter(None, [self.form.hint()])

    def close(self, known: dict[str, Any], skipped: Mapping[Path, str]) -> str:
        """Write what regards all pictures, `known` is said in images.json; say where all is."""
        images = known | {"images": self.images, "annotations": []}
        texts = self.form.texts() | {"images.json": json.dumps(images, indent=1)}
        page = render("pages/gallery.html", gallery=self, files=list(texts), skipped=skipped)
        for name, text in (texts | {"index.html": page}).items():
            write_text(self.out / name, text)
        beside = ", ".join([*texts, "overlays", *self.form.folders])
        return f"wrote {self.out / 'index.html'}, and beside it {beside}"


def gather(values: Values, more: Values) -> None:
    """Add values to others."""
    for name, own in more.items():
        values.setdefault(name, []).extend(own)


def remaining(items: Sized) -> list[str]:
    """Say how many there are beyond those that are shown."""
    return [f"... and {len(items) - FIRST} more"] if len(items) > FIRST else []


def left_out(skipped: Mapping[Path, str]) -> Iterator[str]:
    """Say which pictures were skipped and why, and how many files are none by their suffixes."""
    from PIL import Image

    known = Image.registered_extensions().keys() | VIDEOS
    broken = {p: reason for p, reason in skipped.items() if p.suffix.lower() in known}
    others = [path for path in skipped if path not in broken]
    if others:
        suffixes = ", ".join(sorted({path.suffix.lower() or "no suffix" for path in others}))
        many = "s that are no pictures" if len(others) > 1 else " that is no picture"
        yield f"skipped {len(others)} file{many} ({suffixes})"
    for path, reason in islice(broken.items(), FIRST):
        yield f"skipped {path}: {reason}"
    yield from remaining(broken)


def drawn_before(out: Path) -> bool:
    """Say whether an earlier call drew into a folder.

    Raises UserError where its images.json, which would be written over, is somebody else's.
    """
    try:
        return read_json(out / "images.json", OWN) is not None
    except Damaged as error:
        raise UserError(f"out={out}: has an images.json of yours; name another folder") from error


def clear(out: Path) -> Iterator[str]:
    """Delete what an earlier call drew, which would be mixed with what is drawn now; say so."""
    if not drawn_before(out):
        return
    yield f"{out}: what an earlier call wrote there is replaced"
    for name in ("overlays", "labels"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "predictions.json").unlink(missing_ok=True)


def predict_inputs(
    directory: Path,
    inputs: Inputs,
    out: Path,
    words: list[str],
    *,
    threshold: float | None = None,
    annotations: Path | None = None,
    every: int = 1,
    crops: bool = False,
) -> Iterator[str]:
    """Predict on pictures and videos, and draw what is found; yield what to tell of it.

    `annotations` is a COCO file: of its pictures alone, with its ids and in its order, so that
    batches are those of an evaluation. Without one, ids count the pictures. The threshold is that
    of the run's best F1, if none is given.

    Raises UserError where there is no picture, where the files of `out` are not ours, and whatever
    keeps the model from being restored.
    """
    from segsweep.analysis import study
    from segsweep.run.restore import finished, restore

    drawn_before(out)  # before anything is loaded
    config, record = finished(directory, words)
    data = record["data"]
    files, records, category_ids = inputs.files, {}, data["category_ids"]
    if annotations:
        records, category_ids, remarks = annotated.matched(annotations, files, data)
        yield from remarks
        files = [*records]
    from segsweep.task.base import kind  # needs torch, which nothing so far does

    task = kind(config.data.task)
    objects = task.placed and not task.dense
    if crops and not objects:
        raise UserError(f"crops=true: {directory.name} finds {task.finds}, which have no objects")
    restored = restore(directory, words=words)
    if threshold is None:
        threshold, reason = study.threshold(directory, config, record)
        yield from [f"threshold {threshold:.2f}: {reason}; threshold=0.3 changes it"] * objects
    form = result_form(restored, category_ids, threshold, out, crops)
    gallery = Gallery(record["name"], inputs.title, out, form, every)
    batch_size = config.hparams.images_at_once
    folder = Folder(files, config.data, batch_size, records, restored.levels, every)
    yield from draw(restored, folder, gallery, threshold)
    yield gallery.close(known_of(record, category_ids, threshold), folder.skipped)


def known_of(record: dict[str, Any], category_ids: list[int], threshold: float) -> dict[str, Any]:
    """Return what a COCO file of results says beside them."""
    categories = zip(category_ids, record["data"]["classes"], strict=True)
    return {
        "info": {"run": record["id"], "threshold": threshold},
        "categories": [{"id": i, "name": name} for i, name in categories],
    }


def draw(restored: Restored, folder: Folder, gallery: Gallery, threshold: float) -> Iterator[str]:
    """Fill a gallery with what a model finds from a score on; yield what to tell of it.

    Raises UserError where no file is a picture.
    """
    from segsweep.run.evaluate import predict_shots

    found = predict_shots(restored.config, restored.model, folder, threshold, gallery.title)
    for file, shots in groupby(found, lambda pair: pair[0].file):
        if not gallery.drawn:  # there is a first picture to take their place
            yield from clear(gallery.out)
        gallery.add(file, shots)
    yield from left_out(folder.skipped)
    if not gallery.drawn:
        raise UserError(f"images={gallery.title}: none of {len(folder.files)} files is a picture")
    yield from gallery.lines()

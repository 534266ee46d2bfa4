"""A clean copy of a data set in COCO form: what can be used, written as it is read.

    OUT/train.json, OUT/val.json    or one file of the name of the one that was checked
    OUT/images/...                  hard links where the file system has them, else copies
    OUT/changes.csv                 file, code, id, change: every one

Keys of entries that are not ours (licences, attributes) are kept. What only a person can decide is
left as it is: copies, objects that are there twice, images that are listed twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.check.parts import Part, Single, ViaFile
from segsweep.check.pictures import Look
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.data.formats.coco_file import parse
from segsweep.data.sets.coco import Coco

Looks = Sequence[tuple[Part, list[Look]]]
REWRITTEN = {
    "box-disagrees": "the box is that of the mask",
    "filled-in": "bbox, area and iscrowd are filled in",
    "area-disagrees": "the area is that of the mask",
    "ring-dropped": "useless polygons are left out",
    "category-root": "left out of the categories",
    "category-name-twice": "called by name and id",
}


@dataclass
class Copy:
    """A part on its way to its copy; `changes` are rows of (file, code, id, change)."""

    part: Part
    looks: list[Look]
    out: Path
    changes: list[tuple[str, str, Any, str]] = field(default_factory=list)

    def log(self, code: str, identity: Any, change: str) -> None:
        """Note a change."""
        self.changes.append((self.part.name, code, identity, change))


def fix(data: DataSet, looks: Looks, out: Path) -> str:
    """Write the copy; return what to tell of it.

    Raises UserError for a folder that is not empty, and for what cannot be mended.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--fix {out}: is not empty; name a new folder")
    if data.task != "instances":
        raise UserError("--fix: label maps cannot be mended, only instances")
    fatal = [f for part, _ in looks for f in part.findings() if f.level == "fatal"]
    unfixable = [f"{f.file}: {f.what}" for f in fatal if not f.fixable]
    for part, part_looks in looks:
        if not unfixable and not any(
            look.usable and look.record.annotations for look in part_looks
        ):
            unfixable.append(f"{part.name}: nothing that can be used would be left")
    if unfixable:
        raise UserError("--fix: cannot be mended: " + "; ".join(unfixable))
    (out / "images").mkdir(parents=True, exist_ok=True)
    categories, sources, counts = declared(data), {}, []
    copies = [Copy(part, part_looks, out) for part, part_looks in looks]
    for copy in copies:
        content = cleaned(copy, categories, sources)
        name = Path(copy.part.name).stem if isinstance(data, Single) else copy.part.name
        write_text(out / f"{name}.json", json.dumps(content, allow_nan=False))
        counts.append(f"{name}.json: {len(content['images'])} images, "
                    f"{len(content['annotations'])} annotations")  # fmt: skip
    rows = [row for copy in copies for row in copy.changes]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "code", "id", "change"), *rows])
    write_text(out / "changes.csv", text.getvalue())
    return f"wrote {out} ({'; '.join(counts)}); {len(rows)} changes are listed in changes.csv"


def declared(data: DataSet) -> list[dict[str, Any]]:
    """Return the categories of the copy, in the order of contiguous classes."""
    if not isinstance(data, Coco):
        pairs = zip(data.category_ids(), data.classes(), strict=True)
        return [{"id": key, "name": name} for key, name in pairs]
    categories = data.files["train"].categories
    integral = all(isinstance(key, int) for key in categories)
    return [
        {"id": key if integral else place, "name": name}
        for place, (key, name) in enumerate(categories.items(), start=1)
    ]


def cleaned(
    copy: Copy, categories: list[dict[str, Any]], sources: dict[str, Path]
) -> dict[str, Any]:
    """Return the content of an annotation file; its pictures are written on the way."""
    part, records = copy.part, [look.record for look in copy.looks if look.usable]
    for finding in part.findings():
        for identity in finding.ids:
            if finding.kind.drops:
                copy.log(finding.code, identity, "left out")
            elif finding.code in REWRITTEN:
                copy.log(finding.code, identity, REWRITTEN[finding.code])
    raw_images, raw_annotations, other_keys = originals(part)
    usable = {id(annotation) for record in records for annotation in record.annotations}
    for annotation in read(copy):
        if id(annotation) not in usable:
            copy.log("picture", annotation.id, "left out with its picture")
    image_id = numbering([r.image_id for r in records], "image-id-text", copy)
    number = numbering([a.id for r in records for a in r.annotations], "annotation-id-twice", copy)
    wrong_areas = {i for f in part.findings() if f.code == "area-disagrees" for i in f.ids}
    content = {**other_keys, "images": [], "annotations": [], "categories": categories}
    for look in copy.looks:
        record = look.record
        if not look.usable:
            continue
        size = {"height": record.height, "width": record.width}
        entry = raw_images.get(record.image_id, {}) | {"id": image_id(record.image_id)} | size
        content["images"].append(entry | {"file_name": picture(copy, look, sources)})
        for annotation in record.annotations:
            new = number(annotation.id)
            segmentation = segmentation_of(annotation, record, copy)
            if segmentation is None:
                continue
            area = annotation.area
            if annotation.id in wrong_areas:
                area = masks.area(masks.to_rle(segmentation, (record.height, record.width)))
            content["annotations"].append(
                raw_annotations.get(id(annotation), {})
                | {"id": new, "image_id": entry["id"], "bbox": list(annotation.bbox), "area": area}
                | {"category_id": categories[annotation.category]["id"]}
                | {"segmentation": segmentation, "iscrowd": int(annotation.iscrowd)}
            )
    return content


def read(copy: Copy) -> list[Annotation]:
    """Return the usable annotations, also those of pictures that are not."""
    data, part = copy.part.data, copy.part
    if isinstance(data, Coco):
        file = data.files["train" if isinstance(data, Single) else part.name]
        return [annotation for annotation in file.by_entry if annotation is not None]
    return [annotation for look in copy.looks for annotation in look.record.annotations]


def originals(part: Part) -> tuple[dict[Any, dict], dict[int, dict], dict[str, Any]]:
    """Return the entries of a COCO file by image id and by annotation, and its other keys."""
    data = part.data
    if not isinstance(data, Coco) or isinstance(data, ViaFile):
        return {}, {}, {}
    file = data.files["train" if isinstance(data, Single) else part.name]
    content = parse(file.path)
    entries = [e for e in content["images"] if isinstance(e, dict)]
    images = {e["id"]: e for e in entries if isinstance(e.get("id"), int | float | str)}
    pairs = zip(file.by_entry, content["annotations"], strict=True)
    annotations = {id(annotation): entry for annotation, entry in pairs if annotation is not None}
    other_keys = {key: value for key, value in content.items() if key in ("info", "licenses")}
    return images, annotations, other_keys


def numbering(ids: list[Any], code: str, copy: Copy) -> Callable[[Any], int]:
    """Return what gives each its number: its own if all are good, else 1, 2 ... in order."""
    good = len(set(ids)) == len(ids) and all(isinstance(i, int) and i > 0 for i in ids)
    if good:
        return lambda identity: identity
    numbers = iter(range(1, len(ids) + 1))

    def again(identity: Any) -> int:
        new = next(numbers)
        if new != identity:
            copy.log(code, identity, f"is now {new}")
        return new

    return again


def segmentation_of(annotation: Annotation, record: Record, copy: Copy) -> Any:
    """Return a segmentation for JSON, cut at the frame, or None if nothing of it is inside."""
    polygons = masks.listed(annotation.segmentation)
    if isinstance(polygons, dict):
        return polygons
    cut = [clipped(ring, record.width, record.height) for ring in polygons]
    if cut == polygons:
        return polygons
    rings = [ring for ring in cut if len(ring) >= 6]
    copy.log("sticks-out", annotation.id, "cut at the frame" if rings else "left out")
    return rings or None


def clipped(ring: list[float], width: float, height: float) -> list[float]:
    """Return a polygon [x1, y1, ...] cut at the frame, side by side (Sutherland and Hodgman 1974).

    Its area is the same; parts that the frame separates are joined along it.
    """
    points = list(zip(ring[0::2], ring[1::2], strict=True))
    for axis, bound, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        cut = []
        for before, point in zip([*points[-1:], *points[:-1]], points, strict=True):
            depth, last = sign * (point[axis] - bound), sign * (before[axis] - bound)
            if min(depth, last) < 0 < max(depth, last):
                part = last / (last - depth)
                crossing = [b + part * (p - b) for b, p in zip(before, point, strict=True)]
                crossing[axis] = bound
                cut.append((crossing[0], crossing[1]))
            if depth >= 0:
                cut.append(point)
        points = cut
    return [value for point in points for value in point]


def picture(copy: Copy, look: Look, sources: dict[str, Path]) -> str:
    """Put the picture of a record into the copy, upright; return its name there."""
    record, source = look.record, copy.part.data.picture(look.record)
    turned = any(code == "picture-turned" for code, _, _ in look.defects)
    if source is not None and not turned:
        name = record.file
        if sources.setdefault(name, source) != source:
            name = f"{copy.part.name}-{name}"
        target = copy.out / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            link(source, target)
        return name
    name = f"{Path(record.file).with_suffix('')}-{copy.part.name}-{record.image_id}.png"
    target = copy.out / "images" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(copy.part.data.image(record)).save(target)
    if turned:
        copy.log("picture-turned", record.file, f"stored upright as {name}")
    return name


def link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

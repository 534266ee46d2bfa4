"""A clean copy of a data set in COCO form: what can be used, written as it is read.

    OUT/train.json, OUT/val.json    or one file of the name of the one that was checked
    OUT/images/...                  hard links where the file system has them, else copies
    OUT/changes.csv                 file, code, id, change: every one

Keys of entries that are not ours (licences, attributes) are kept. What only a person can decide is
left as it is: copies, objects that are there twice, images that are listed twice.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segsweep.base.csv_files import as_csv
from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.check.changes import (
    ANNOTATION,
    IMAGE,
    Copy,
    finite,
    keyed,
    numbering,
    originals,
    tell_dropped,
    written,
)
from segsweep.check.parts import Part, Single
from segsweep.check.pictures import Look
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.data.formats.entries import EXACT
from segsweep.data.formats.suspects import is_box
from segsweep.data.sets.coco import Coco

Looks = Sequence[tuple[Part, list[Look]]]


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
    write_text(out / "changes.csv", as_csv([("file", "code", "id", "change"), *rows]))
    return f"wrote {out} ({'; '.join(counts)}); {len(rows)} changes are listed in changes.csv"


def declared(data: DataSet) -> list[dict[str, Any]]:
    """Return the categories of the copy, in the order of contiguous classes."""
    if not isinstance(data, Coco):
        pairs = zip(data.category_ids(), data.classes(), strict=True)
        return [{"id": key, "name": name} for key, name in pairs]
    file = data.files["train"]
    entries = keyed(data.found.original("train").get("categories", []))
    integral = all(isinstance(key, int) and abs(key) < EXACT for key in file.categories)
    return [
        finite(entries.get(key, {})) | {"id": key if integral else place, "name": name}
        for place, (key, name) in enumerate(file.categories.items(), start=1)
    ]


def cleaned(
    copy: Copy, categories: list[dict[str, Any]], sources: dict[str, Path]
) -> dict[str, Any]:
    """Return the content of an annotation file; its pictures are written on the way."""
    part = copy.part
    looks = [look for look in copy.looks if look.usable and not bared(copy, look.record)]
    records = [look.record for look in looks]
    raw_images, raw_annotations, other_keys = originals(copy, categories)
    tell_dropped(copy, records)
    image_id = numbering([r.image_id for r in records], "image", copy)
    number = numbering([a.id for r in records for a in r.annotations], "annotation", copy)
    by_code = {finding.code: {*finding.ids} for finding in part.findings()}
    # an area without the hole is all that tells of one
    wrong_areas = by_code.get("area-disagrees", set()) - by_code.get("hole-filled", set())
    content = {**other_keys, "images": [], "annotations": [], "categories": categories}
    for look in looks:
        record = look.record
        raw = raw_images.get(record.image_id, {})
        new: dict[str, Any] = {"height": record.height, "width": record.width}
        new["file_name"] = picture(copy, look, sources)
        new |= {"id": image_id(record.image_id)}
        entry = written(copy, record.image_id, raw, new, IMAGE)
        content["images"].append(entry)
        for annotation in record.annotations:
            new_id = number(annotation.id)
            raw = raw_annotations.get(id(annotation), {})
            segmentation = segmentation_of(annotation, record, copy, raw)
            if segmentation is None and annotation.segmentation is not None:
                continue
            area = annotation.area
            if annotation.id in wrong_areas:
                size = (record.height, record.width)
                area = masks.area(masks.to_rle(annotation.shape, size))
            keeps = "masks-suspect" in by_code and is_box(raw.get("bbox"))  # which may be right
            box = raw["bbox"] if keeps else list(annotation.bbox)
            new = {"image_id": entry["id"], "bbox": box, "area": area}
            new |= {"category_id": categories[annotation.category]["id"]}
            new |= {"iscrowd": int(annotation.iscrowd), "id": new_id}
            new |= {"segmentation": segmentation} if segmentation else {}
            content["annotations"].append(written(copy, annotation.id, raw, new, ANNOTATION))
    return content


def bared(copy: Copy, record: Record) -> bool:
    """Tell, and note, whether nothing is left of what was annotated: that is no empty picture."""
    if bare := not record.complete and not record.annotations:
        copy.log("picture", record.file, "left out: nothing that is annotated on it can be used")
    return bare


def segmentation_of(annotation: Annotation, record: Record, copy: Copy, raw: dict[str, Any]) -> Any:
    """Return a segmentation for JSON, cut at the frame; None of a box, or if nothing is inside."""
    if annotation.segmentation is None:
        return None
    polygons = masks.listed(annotation.segmentation)
    if raw and polygons != raw["segmentation"]:
        copy.log("mask-form", annotation.id, "written as COCO does, without useless polygons")
    if isinstance(polygons, dict):
        return polygons
    cut = [clipped(ring, record.width, record.height) for ring in polygons]
    if cut == polygons:
        return polygons
    rings = [ring for ring in cut if len(ring) >= 6]
    copy.log("sticks-out", annotation.id, "cut at the frame" if rings else "left out: outside")
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
    """Make a hard link, or a copy where that is not possible, and of what is a link itself."""
    try:
        if source.is_symlink():  # what it leads to may go, or be another tomorrow
            raise OSError(errno.ELOOP, "is a link")
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

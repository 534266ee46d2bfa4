"""COCO annotation files: read once, checked wholly, before any training.

What cannot be understood is an error that names file and annotation; what is merely useless (an
instance without area) is left out, and counted in one warning per file.
"""

from __future__ import annotations

import json
import operator
import warnings
from array import array
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeGuard

from segsweep.data import masks
from segsweep.data.base import Annotation, Record, Segmentation
from segsweep.errors import UserError

FAR = 10  # sides of the image: a coordinate farther out is no position in it


@dataclass
class CocoFile:
    """A checked annotation file; categories of annotations are still the ids of the file."""

    path: Path
    categories: dict[int, str]  # id -> name, by rising id
    records: list[Record]


def read(path: Path) -> CocoFile:
    """Read and check an annotation file. Raises UserError naming the file and what is wrong."""
    content = parse(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{path}: has no list {key!r}, so it is no COCO annotation file")
    try:
        categories = {whole(c["id"]): str(c["name"]) for c in content["categories"]}
        records = {whole(image["id"]): record(image) for image in content["images"]}
    except (KeyError, TypeError, ValueError) as error:
        needed = "categories need id and name, images id, file_name, height, width"
        raise UserError(f"{path}: {needed}; ids are whole numbers ({error!r})") from error
    if not records:
        raise UserError(f"{path}: has no images")
    if len(records) < len(content["images"]):
        raise UserError(f"{path}: {len(content['images']) - len(records)} image ids occur twice")
    attach(path, content["annotations"], categories, records)
    return CocoFile(path, dict(sorted(categories.items())), list(records.values()))


def parse(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raises UserError with line and column of a fault."""
    text = ""
    try:
        text = path.read_text("utf-8-sig")
        content = json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text at byte {error.start}") from error
    except json.JSONDecodeError as error:
        if text.startswith("version https://git-lfs"):
            raise UserError(f"{path}: is a Git LFS pointer; run `git lfs pull`") from error
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: is not valid JSON at {place} ({error.msg})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a COCO annotation object")
    return content


def whole(value: Any) -> int:
    """Return a whole number as it is. Raises ValueError for anything else."""
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def record(image: dict[str, Any]) -> Record:
    """Return an entry of `images`, still without annotations."""
    height, width = whole(image["height"]), whole(image["width"])
    if min(height, width) < 1:
        raise ValueError(f"image {image['id']} has {width}x{height} pixels")
    return Record(image["id"], str(image["file_name"]), height, width, [])


def attach(
    path: Path, entries: list[Any], categories: dict[int, str], records: dict[int, Record]
) -> None:
    """Append annotations to their records; leave out those without area, with one warning."""
    left_out = []
    for entry in entries:
        where = f"{path}: annotation {entry.get('id') if isinstance(entry, dict) else entry!r}"
        try:
            image = records.get(entry["image_id"])
            if image is None:
                raise UserError(f"{where}: there is no image {entry['image_id']!r}")
            if entry["category_id"] not in categories:
                known = ", ".join(map(str, sorted(categories)))
                raise UserError(f"{where}: category {entry['category_id']!r} is none of {known}")
            segmentation = checked(entry.get("segmentation"), image)
        except KeyError as error:
            raise UserError(f"{where}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from error
        if segmentation:
            image.annotations.append(annotation(entry, segmentation, image))
        else:
            left_out.append(entry.get("id"))
    if entries and not any(entry.get("segmentation") for entry in entries):
        raise UserError(f"{path}: no annotation has a segmentation; these are boxes, not masks")
    if left_out:
        first = ", ".join(map(str, left_out[:5])) + (", ..." if len(left_out) > 5 else "")
        reasons = "no mask, fewer than 3 points, no area, or outside the image"
        message = f"{path}: {len(left_out)} annotations left out ({reasons}): {first}"
        warnings.warn(message, stacklevel=3)


def checked(segmentation: Any, image: Record) -> Segmentation | None:
    """Return a segmentation that can be trusted, or None if it covers nothing of the image.

    Raises KeyError, TypeError or ValueError for what is no segmentation of this image.
    """
    if isinstance(segmentation, dict):
        rle = masks.to_rle(segmentation, (image.height, image.width))
        return rle if masks.area(rle) else None
    polygons = [polygon(points, image) for points in segmentation or []]
    return [p for p in polygons if p is not None] or None


def polygon(points: Any, image: Record) -> array[float] | None:
    """Return one polygon [x1, y1, ...], or None if it has no area inside the image."""
    coordinates = array("d", points)
    if len(coordinates) % 2:
        raise ValueError(f"a polygon of {len(coordinates)} numbers: x and y must alternate")
    reach = FAR * max(image.height, image.width)
    if not isfinite(sum(coordinates)) or max(map(abs, coordinates), default=0) > reach:
        raise ValueError("a coordinate is not finite, or far away from the image")
    xs, ys = coordinates[0::2], coordinates[1::2]
    if len(xs) < 3 or max(xs) <= 0 or max(ys) <= 0:
        return None
    if min(xs) >= image.width or min(ys) >= image.height:
        return None
    forth = sum(map(operator.mul, xs, ys[1:] + ys[:1]))
    back = sum(map(operator.mul, ys, xs[1:] + xs[:1]))
    return coordinates if abs(forth - back) > 1e-6 else None


def annotation(entry: dict[str, Any], segmentation: Segmentation, image: Record) -> Annotation:
    """Return an annotation; a box or an area that is missing or senseless comes from the mask."""
    box, area = entry.get("bbox"), entry.get("area")
    if not is_box(box) or not is_number(area):
        rle = masks.to_rle(segmentation, (image.height, image.width))
        box = box if is_box(box) else masks.bbox(rle)
        area = area if is_number(area) else masks.area(rle)
    crowd, number = bool(entry.get("iscrowd", 0)), entry.get("id", 0)
    return Annotation(entry["category_id"], segmentation, box, area, crowd, number)


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a value is [x, y, w, h] with a width and a height."""
    is_four = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    return is_four and min(value[2:]) > 0


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and isfinite(value)

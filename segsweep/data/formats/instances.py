"""One annotation of a COCO file: its mask or its box can be trusted, or it is said why not.

Nothing is rasterised before its coordinates are known to be finite and near the image.
"""

from __future__ import annotations

import operator
from array import array
from math import isfinite
from typing import Any, TypeGuard

from segsweep.data.base import Annotation, Record, Segmentation
from segsweep.data.findings import Findings
from segsweep.data.formats import masks
from segsweep.data.formats.entries import valid_id

FAR = 10  # sides of the image: a coordinate farther out is no position in it
VAST = 1e12  # no coordinate and no area of an image
SLACK = 2  # pixels between a box and the box of its mask

Bounds = tuple[float, float, float, float]  # left, top, right, bottom


class Defect(Exception):
    """Why an entry cannot be used: the code of a finding, and what is to be said of this one."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def annotation(
    entry: dict[str, Any], image: Record, findings: Findings, needs_masks: bool
) -> Annotation:
    """Return a usable annotation; a box that is missing or wrong comes from the mask.

    Without a mask it is a box alone, or a Defect where it `needs_masks`. Raises Defect for what
    covers nothing of the image or is neither mask nor box.
    """
    name = valid_id(entry.get("id"))
    box, area = entry.get("bbox"), entry.get("area")
    if not entry.get("segmentation") and not needs_masks:
        return box_alone(entry, image, findings)
    segmentation, bounds = trusted(entry.get("segmentation"), area, image, findings, name)
    if not {"bbox", "area", "iscrowd"} <= entry.keys():
        findings.add("filled-in", name)
    if not agrees(box, bounds, image):
        if "bbox" in entry:
            findings.add("box-disagrees", name)
        box = masks.bbox(masks.to_rle(segmentation, (image.height, image.width)))
    if not is_number(area) or area <= 0:
        area = masks.area(masks.to_rle(segmentation, (image.height, image.width)))
    crowd = is_crowd(entry, findings)
    return Annotation(entry["category_id"], segmentation, box, area, crowd)


def box_alone(entry: dict[str, Any], image: Record, findings: Findings) -> Annotation:
    """Return an annotation without a mask: its box as it is told. Raises Defect."""
    name, box, area = valid_id(entry.get("id")), entry.get("bbox"), entry.get("area")
    if not isinstance(box, list) or len(box) != 4:
        raise Defect("box-missing")
    x, y, width, height = box
    if all(map(is_number, box)) and min(width, height) <= 0:
        raise Defect("no-area")
    try:
        polygon([x, y, x + width, y, x + width, y + height, x, y + height], image)
    except TypeError as error:
        raise Defect("box-missing") from error
    findings.add("box-alone", name)
    area = area if is_number(area) and area > 0 else width * height
    return Annotation(entry["category_id"], None, box, area, is_crowd(entry, findings))


def is_crowd(entry: dict[str, Any], findings: Findings) -> bool:
    """Tell, and note, whether an annotation is of a crowd."""
    crowd = str(entry.get("iscrowd", 0)).lower() in ("1", "1.0", "true")
    if crowd:
        findings.add("crowd", valid_id(entry.get("id")))
    return crowd


def trusted(
    segmentation: Any, area: Any, image: Record, findings: Findings, name: Any
) -> tuple[Segmentation, Bounds]:
    """Return a segmentation that covers something, and its bounds. Raises Defect."""
    if not segmentation:
        raise Defect("mask-missing")
    if isinstance(segmentation, dict):
        plain = whole_numbers(segmentation)
        if plain is not segmentation:
            findings.add("rle-numbers", name)
        rle = run_lengths(plain, image)
        x, y, width, height = masks.bbox(rle)
        return rle, (x, y, x + width, y + height)
    if not isinstance(segmentation, list):
        raise Defect("mask-form")
    polygons = unnested(segmentation)
    if polygons != segmentation:
        findings.add("polygon-nested", name)
    rings, boxes, useless = [], [], []
    for points in polygons:
        try:
            ring, box = polygon(points, image)
            rings.append(ring)
            boxes.append(box)
        except Defect as defect:
            useless.append(defect)
    if not rings:
        raise useless[0]
    if useless:
        findings.add("ring-dropped", name)
    if len(rings) > 1 and has_hole(rings, boxes, area, image):
        findings.add("hole-filled", name)
    left, top, right, bottom = zip(*boxes, strict=True)
    bounds = min(left), min(top), max(right), max(bottom)
    if min(bounds) < 0 or bounds[2] > image.width or bounds[3] > image.height:
        findings.add("sticks-out", name)
    return rings, bounds


def unnested(polygons: list[Any], levels: int = 3) -> list[Any]:
    """Return polygons as flat lists: some programs write pairs of numbers, or one list too many."""
    pairs = all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in polygons)
    if pairs and len(polygons) > 2:
        return [[value for point in polygons for value in point]]
    flat = []
    for polygon in polygons:
        deeper = isinstance(polygon, list) and polygon and all(isinstance(p, list) for p in polygon)
        flat += unnested(polygon, levels - 1) if deeper and levels else [polygon]
    return flat


def whole_numbers(rle: dict[str, Any]) -> dict[str, Any]:
    """Return an RLE that has whole numbers where they are text or like 3.0, else the very one."""
    mended = {}
    for key in ("size", "counts"):
        values = rle.get(key)
        if isinstance(values, list) and any(type(value) is not int for value in values):
            numbers = [whole(value) for value in values]
            mended |= {} if None in numbers else {key: numbers}
    return rle | mended if mended else rle


def whole(value: Any) -> int | None:
    """Return 3 for 3, 3.0 and "3", None for what is no whole number."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return int(value) if is_number(value) and value == int(value) else None


def has_hole(rings: list[array[float]], boxes: list[Bounds], area: Any, image: Record) -> bool:
    """Tell whether a polygon inside another one is meant as a hole, which COCO's polygons lack.

    The told area proves it if it is rather that without the inner one; else the opposite directions
    do in which the two run.
    """
    frame = (image.height, image.width)
    for inner, small in zip(rings, boxes, strict=True):
        for outer, large in zip(rings, boxes, strict=True):
            if not (large[0] < small[0] and large[1] < small[1]):
                continue
            if not (large[2] > small[2] and large[3] > small[3]):
                continue
            hole, around, every = (masks.to_rle(r, frame) for r in ([inner], [outer], rings))
            if masks.intersections([hole], [around])[0, 0] < masks.area(hole):
                continue
            if not is_number(area) or area <= 0:
                return doubled_area(inner) * doubled_area(outer) < 0
            surplus = masks.area(every) - area
            if abs(surplus - masks.area(hole)) < abs(surplus):
                return True
    return False


def doubled_area(ring: array[float]) -> float:
    """Return twice the area of a polygon [x1, y1, ...], negative if it runs the other way."""
    xs, ys = ring[0::2], ring[1::2]
    forth = sum(map(operator.mul, xs, ys[1:] + ys[:1]))
    return forth - sum(map(operator.mul, ys, xs[1:] + xs[:1]))


def run_lengths(segmentation: dict[str, Any], image: Record) -> dict[str, Any]:
    """Return an RLE that fits its image, compressed. Raises Defect."""
    size = (image.height, image.width)
    try:
        if tuple(segmentation["size"]) != size:
            message = f"its size {segmentation['size']} is not the image's {list(size)}"
            raise Defect("rle-size", message)
        rle = masks.to_rle(segmentation, size)
        filled, area = masks.filled(rle), masks.area(rle)
    except KeyError as error:
        raise Defect("rle-broken", f"its RLE has no {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise Defect("rle-broken", str(error)) from error
    if filled != size[0] * size[1]:
        message = f"its runs fill {filled} pixels, the image has {size[0] * size[1]}"
        raise Defect("rle-broken", message)
    if not area:
        raise Defect("no-area")
    return rle


def polygon(points: Any, image: Record) -> tuple[array[float], Bounds]:
    """Return one polygon [x1, y1, ...] that has an area inside the image. Raises Defect."""
    try:
        coordinates = array("d", points)
    except (TypeError, ValueError, OverflowError) as error:
        raise Defect("mask-form") from error
    if len(coordinates) % 2:
        raise Defect("odd-numbers")
    if len(coordinates) < 6:
        raise Defect("short-polygon")
    if not isfinite(sum(coordinates)):
        raise Defect("not-finite")
    xs, ys = coordinates[0::2], coordinates[1::2]
    left, top, right, bottom = bounds = min(xs), min(ys), max(xs), max(ys)
    reach = FAR * max(image.height, image.width)
    if min(left, top) < -reach or max(right, bottom) > reach:
        raise Defect("far-away")
    if min(right, bottom) <= 0 or left >= image.width or top >= image.height:
        raise Defect("outside")
    if abs(doubled_area(coordinates)) <= 1e-6:
        raise Defect("no-area")
    return coordinates, bounds


def inside(bounds: Bounds, image: Record) -> Bounds:
    """Return what of a box lies in the frame."""
    left, top, right, bottom = bounds
    width, height = image.width, image.height
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def agrees(box: Any, bounds: Bounds, image: Record) -> TypeGuard[list[float]]:
    """Tell whether a value is the box [x, y, w, h] of a mask, up to SLACK pixels in the frame."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return False
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return False
    corners = (x, y, x + width, y + height)
    return boxes_agree(corners, bounds) or boxes_agree(
        inside(corners, image), inside(bounds, image)
    )


def boxes_agree(a: Bounds, b: Bounds) -> bool:
    """Tell whether no side of two boxes differs by more than SLACK."""
    return max(map(abs, map(operator.sub, a, b))) <= SLACK


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a number of this world: finite, and no integer without end."""
    return isinstance(value, int | float) and -VAST < value < VAST

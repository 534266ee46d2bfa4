"""Annotation files of the VGG Image Annotator (VIA), versions 1 and 2, exports and projects.

Regions are a dict in version 1 and a list in version 2; a project keeps its entries below
`_via_img_metadata`. Every shape becomes one polygon. What cannot be used is no error here but a
fault in a list: the reader knows how bad a fault is to it. Whether a picture exists, and whether a
polygon lies within it, is not asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, isfinite, pi, sin
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.formats.coco_file import parse

CORNERS = 64  # of a polygon in place of a circle or an ellipse

Points = list[tuple[float, float]]


@dataclass
class ViaRegion:
    """One shape as a polygon [x1, y1, ...] in pixels.

    `attributes` are texts, of checkboxes the chosen words with a comma between. `gap` tells how far
    a polyline is from closing: the distance of its ends in parts of the diagonal of its box; 0 for
    every other shape.
    """

    shape: str  # as the file calls it: polygon, polyline, rect, circle, ellipse
    polygon: list[float]
    attributes: dict[str, str]
    gap: float = 0.0


@dataclass
class ViaImage:
    """One picture: `file` is its name, `bytes` the size that the file tells (-1: unknown)."""

    key: str
    file: str
    bytes: int
    regions: list[ViaRegion]


@dataclass
class ViaFault:
    """What cannot be used: a region of an entry by its number from 0, or (None) all the entry."""

    entry: str
    region: int | None
    reason: str


def read(path: Path) -> tuple[list[ViaImage], list[ViaFault]]:
    """Return the pictures of a file with their usable regions, and what was not usable.

    A region without any label is left out where others have labels. Raises UserError for a file
    that is unreadable, no JSON, or not of VIA.
    """
    content = parse(path)
    entries = content.get("_via_img_metadata", content)
    if not isinstance(entries, dict) or not any(map(_is_entry, entries.values())):
        cure = "export the annotations as JSON with VIA 1 or 2"
        raise UserError(f"{path}: has no entries with filename and regions, as VIA writes; {cure}")
    images, faults = [], []
    for key, entry in entries.items():
        if _is_entry(entry):
            images.append(_image(key, entry, faults))
        elif not key.startswith("_via_"):
            faults.append(ViaFault(key, None, "the entry has no filename or no regions"))
    _drop_unlabelled(images, faults)
    return [image for image, _ in images], faults


def _is_entry(entry: Any) -> bool:
    """Tell whether a value describes a picture."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and isinstance(entry.get("regions"), list | dict)
    )


def _image(
    key: str, entry: dict[str, Any], faults: list[ViaFault]
) -> tuple[ViaImage, dict[int, ViaRegion]]:
    """Return a picture, still without regions, and its regions by number."""
    regions = entry["regions"]
    shapes: dict[int, ViaRegion] = {}
    for number, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
        try:
            shapes[number] = _region(region)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            faults.append(ViaFault(key, number, reason))
    size = entry.get("size")
    return ViaImage(key, entry["filename"], size if isinstance(size, int) else -1, []), shapes


def _drop_unlabelled(
    images: list[tuple[ViaImage, dict[int, ViaRegion]]], faults: list[ViaFault]
) -> None:
    """Give the pictures their regions; those without a label only if no region has one."""
    labelled = any(any(r.attributes.values()) for _, shapes in images for r in shapes.values())
    for image, shapes in images:
        for number, region in shapes.items():
            if any(region.attributes.values()) or not labelled:
                image.regions.append(region)
            else:
                faults.append(ViaFault(image.key, number, "has no label"))


def _region(region: Any) -> ViaRegion:
    """Return a usable region. Raises KeyError, TypeError or ValueError that say what is wrong."""
    if not isinstance(region, dict) or not isinstance(region.get("shape_attributes"), dict):
        raise ValueError("has no shape_attributes")
    shape = region["shape_attributes"]
    name = str(shape["name"])
    points = _outline(name, shape)
    if not all(isfinite(x) and isfinite(y) for x, y in points):
        raise ValueError("a coordinate is not finite")
    if len(set(points)) < 3:
        raise ValueError(f"a {name} of {len(set(points))} different points has no area")
    gap = 0.0
    if name == "polyline":
        (left, right), (top, bottom) = ((min(v), max(v)) for v in zip(*points, strict=True))
        ends = hypot(points[0][0] - points[-1][0], points[0][1] - points[-1][1])
        gap = ends / hypot(right - left, bottom - top)
    attributes = region.get("region_attributes")
    entries = attributes.items() if isinstance(attributes, dict) else ()
    texts = {str(key): _text(value) for key, value in entries}
    return ViaRegion(name, [v for point in points for v in point], texts, gap)


def _outline(name: str, shape: dict[str, Any]) -> Points:
    """Return the corners of a shape."""
    if name in ("polygon", "polyline"):
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        if len(xs) != len(ys):
            raise ValueError(f"has {len(xs)} values of x and {len(ys)} of y")
        return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    if name == "rect":
        x, y, width, height = (float(shape[k]) for k in ("x", "y", "width", "height"))
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    if name in ("circle", "ellipse"):
        x, y = float(shape["cx"]), float(shape["cy"])
        radii = ("r", "r") if name == "circle" else ("rx", "ry")
        a, b = (float(shape[key]) for key in radii)
        theta = float(shape.get("theta", 0.0))  # radians
        angles = [2 * pi * k / CORNERS for k in range(CORNERS)]
        right = [(a * cos(angle), b * sin(angle)) for angle in angles]
        c, s = cos(theta), sin(theta)
        return [(x + c * u - s * v, y + s * u + c * v) for u, v in right]
    raise ValueError(f"a {name} is no area")


def _text(value: Any) -> str:
    """Return an attribute as text."""
    if isinstance(value, dict):
        return ",".join(str(word) for word, chosen in value.items() if chosen)
    return "" if value is None else str(value).strip()

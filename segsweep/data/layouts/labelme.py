"""Folders of LabelMe: a JSON file for each picture, which lies beside it.

a.jpg, a.json, b.jpg, b.json          or below train/ and val/
"""

from __future__ import annotations

import base64
import io
import posixpath
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.layouts import outlines
from segsweep.data.layouts.base import AnnotatedPicture, DrawnObject, Layout, unannotated
from segsweep.data.layouts.places import sized
from segsweep.data.layouts.tree import PICTURES, by_split

if TYPE_CHECKING:
    from segsweep.data.findings import Findings
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.layouts.tree import Tree

IGNORED = "__ignore__"  # what LabelMe's own converters leave out
ONE_SHAPE = frozenset({"label", "points", "shape_type"})


class LabelmeLayout(Layout):
    """Annotations of LabelMe: shapes of one `group_id` and label are one object."""

    hint = "JSON files of LabelMe beside their pictures"

    @classmethod
    def find(cls, tree: Tree) -> LabelmeLayout | None:
        """Return the LabelMe files of each split, named by their folder."""
        parts = by_split((p for p, keys in tree.jsons.items() if cls.reads(keys)), tree.root)
        return cls(tree.root, "LabelMe", parts) if parts else None

    @classmethod
    def reads(cls, keys: frozenset[str]) -> bool:
        """Tell by the keys in its head whether a JSON file is of LabelMe."""
        return "shapes" in keys and ("imagePath" in keys or keys >= ONE_SHAPE)

    def pictured(
        self, split: str, places: Pictures, findings: Findings
    ) -> Iterator[AnnotatedPicture]:
        """Yield the pictures of a split; objects are called by file and number of the shape."""
        from segsweep.data.formats.coco_file import parse

        used = set()
        for path in self.parts[split]:
            name = path.relative_to(self.root).as_posix()
            try:
                told = parse(path)
            except UserError as error:
                findings.add("file-unreadable", name, str(error))
                continue
            picture = _picture(name, str(told.get("imagePath") or ""), places)
            place = sized(places, picture, findings)
            if place is None:
                continue
            height, width = told.get("imageHeight"), told.get("imageWidth")
            size = place[1]
            if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
                size = height, width  # where it is another, the picture is another: found later
            shapes = told.get("shapes")
            shapes = shapes if isinstance(shapes, list) else []
            used.add(place[0])
            yield AnnotatedPicture(place[0], size, *_objects(shapes, name, size, findings))
        unannotated(used, places, findings)


def _picture(file: str, told: str, places: Pictures) -> str:
    """Return what the picture of a file may be called: as told, else by its name beside the file.

    What is told is relative to the file, and of another machine more often than not.
    """
    above, bare = posixpath.dirname(file), PureWindowsPath(told).name
    stem = posixpath.splitext(file)[0]
    candidates = [posixpath.normpath(posixpath.join(above, told.replace("\\", "/")))]
    candidates += [posixpath.join(above, bare), *(stem + suffix for suffix in PICTURES), bare]
    return next((name for name in candidates if places.find(name)), told or f"{stem}.jpg")


def _objects(
    shapes: list[Any], file: str, size: tuple[int, int], findings: Findings
) -> tuple[list[DrawnObject], bool]:
    """Return the objects of a picture, and whether these are all shapes.

    Shapes that are no area are left out, and a finding.
    """
    from segsweep.data.formats.images import UNREADABLE

    objects: list[DrawnObject] = []
    complete = True
    groups: dict[tuple[str, Any], DrawnObject] = {}
    for number, shape in enumerate(shapes, start=1):
        name = f"{file} shape {number}"
        try:
            outline, group = _outline(shape, size), shape.get("group_id")
            label = str(shape.get("label") or "")
            if label == IGNORED:
                raise ValueError("its label says that it is to be ignored")
        except (AttributeError, LookupError, TypeError, OverflowError, *UNREADABLE) as error:
            why = f"has no {error}" if isinstance(error, KeyError) else str(error)
            findings.add("region-unusable", name, f"{name}: {why}")
            complete = False
            continue
        known = None if group is None else groups.get((label, str(group)))
        if known is not None:
            known.segmentation = _united(known.segmentation, outline, size)
            continue
        objects.append(DrawnObject(name, label, outline))
        if group is not None:
            groups[label, str(group)] = objects[-1]
    return objects, complete


def _outline(shape: dict[str, Any], size: tuple[int, int]) -> Any:
    """Return the polygons or the run lengths of a shape. Raises what says why there are none."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "mask":
        return _mask(shape["mask"], points, size)
    if kind == "rectangle" and len(points) == 2:
        return [outlines.rectangle(points)]
    if kind == "circle":
        return [outlines.circle(points)]
    if kind in ("polygon", "rectangle", "rotation"):
        return [[float(v) for x, y in points for v in (x, y)]]
    raise ValueError(f"a {kind} is no area")


def _mask(text: str, points: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return the run lengths of a drawn mask: a PNG file in base64 between two corners."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as file:
        mask = np.asarray(file) > 0
    left, top = (int(v) for v in points[0])
    mask = mask[max(-top, 0) : size[0] - top, max(-left, 0) : size[1] - left]
    if not mask.any():
        raise ValueError("its mask has no pixel in the picture")
    return outlines.runs(mask, (max(top, 0), max(left, 0)), size)


def _united(a: Any, b: Any, size: tuple[int, int]) -> Any:
    """Return two parts of an object as one segmentation."""
    if isinstance(a, list) and isinstance(b, list):
        return a + b
    from segsweep.data.formats import masks

    both = masks.to_mask(a, size) | masks.to_mask(b, size)
    return masks.encode(both[None])[0]

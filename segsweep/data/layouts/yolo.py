"""Segmentation sets of YOLO, as Ultralytics reads them and Roboflow, CVAT and Label Studio write.

    data.yaml                     names (list or dict), path, train, val, test: folders or lists
    images/train/a.jpg            or train/images/a.jpg
    labels/train/a.txt            a line for each object: class x1 y1 x2 y2 ..., parts of the size
    classes.txt                   the names, one a line, where there is no data.yaml

A picture without a file of labels has no objects. A line of four numbers is a box, no mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.layouts.base import AnnotatedPicture, Classes, DrawnObject, Layout
from segsweep.data.layouts.places import sized
from segsweep.data.layouts.tree import PICTURES, by_split

if TYPE_CHECKING:
    from segsweep.data.findings import Findings
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.layouts.tree import Tree

KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
LARGEST = 1 << 20  # bytes of a file like data.yaml
BOX = (4, 5)  # numbers of a box, and of one with a track


@dataclass(frozen=True)
class YoloLayout(Layout):
    """Pictures with text files of polygons or boxes; `names` of the classes by their number."""

    names: dict[int, str] = field(default_factory=dict)

    hint = "YOLO segmentation (data.yaml or classes.txt, labels/*.txt)"

    @classmethod
    def find(cls, tree: Tree) -> YoloLayout | None:
        """Return the pictures of each split and their label files."""
        title, names, pictures = _described(tree) or _bare(tree)
        texts = set(tree.ending(".txt"))
        parts = {s: [*_labels(several, texts).values()] for s, several in pictures.items()}
        if not names or not any(parts.values()):
            return None
        parts, pictures = (
            {split: [tree.root / path for path in paths] for split, paths in several.items()}
            for several in (parts, pictures)
        )
        return cls(tree.root, title, parts, pictures, names=names)

    def pictured(
        self, split: str, places: Pictures, findings: Findings
    ) -> Iterator[AnnotatedPicture]:
        """Yield the pictures of a split; objects are called by label file and line."""
        texts = {path.relative_to(self.root).as_posix() for path in self.parts[split]}
        pictures = [path.relative_to(self.root).as_posix() for path in self.pictures[split]]
        files = _labels(pictures, texts)
        for path in sorted({f for t in self.parts[split] for f in t.parent.glob("*.txt")}):
            name = path.relative_to(self.root).as_posix()
            if name not in texts and path.parent != self.root:
                findings.add("annotation-orphan", name, f"{name} has no picture")
        for picture in pictures:
            place = sized(places, picture, findings)
            if place is not None:
                text = files.get(picture)
                lines = (self.root / text).read_text("utf-8", "replace") if text else ""
                objects = [
                    _object(line, f"{text} line {number}", place[1])
                    for number, line in enumerate(lines.splitlines(), start=1)
                    if line.strip()
                ]
                yield AnnotatedPicture(*place, objects)

    def classes(self, labels: set[Any]) -> Classes:
        """Return all classes that are declared, by their numbers."""
        return {number: (number, name) for number, name in self.names.items()}

    def digest(self, split: str) -> str:
        """Return a hash of label files, names of pictures, and names of classes."""
        names = json.dumps(self.names, sort_keys=True)
        return sha256(f"{super().digest(split)} {names}".encode()).hexdigest()


Described = tuple[str, dict[int, str], dict[str, list[str]]]
"""What a set is called, its classes, its pictures by split."""


def _described(tree: Tree) -> Described | None:
    """Return what the first file like data.yaml tells. Raises UserError for one of keypoints."""
    import yaml

    for path in sorted(tree.ending(".yaml", ".yml"), key=lambda path: path.count("/")):
        try:
            with (tree.root / path).open(encoding="utf-8-sig") as file:
                told = yaml.safe_load(file.read(LARGEST))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if not isinstance(told, dict) or not isinstance(told.get("names"), list | dict):
            continue
        if "kpt_shape" in told:
            raise UserError(f"{tree.root / path}: is of keypoints (kpt_shape); export outlines")
        names = told["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        scalar = str | int | float | bool  # of other things the text may be endless
        numbered = {
            int(key): str(name)
            for key, name in pairs
            if isinstance(name, scalar) and isinstance(key, int | str) and f"{key}".isdecimal()
        }
        pictures: dict[str, list[str]] = {}
        for key, split in KEYS.items():
            values = told.get(key)
            for value in values if isinstance(values, list) else [values]:
                where = f"{told.get('path') or ''}/{value}" if isinstance(value, str) else None
                found = _pictures(tree, path, where) if where else []
                pictures |= {split: pictures.get(split, []) + found} if found else {}
        if pictures:
            title = "Roboflow export (YOLO)" if "roboflow" in told else f"YOLO ({path})"
            return title, numbered, pictures
    return None


def _bare(tree: Tree) -> Described:
    """Return what classes.txt tells; the names of folders tell the splits."""
    files = [path for path in tree.files if path.rpartition("/")[2] == "classes.txt"]
    lines = (tree.root / files[0]).read_text("utf-8", "replace").split("\n") if files else []
    names = [line.strip() for line in lines if line.strip()]
    parts = by_split(tree.ending(*PICTURES) if names else [], tree.root)
    pictures = {
        split: [path.relative_to(tree.root).as_posix() for path in paths]
        for split, paths in parts.items()
    }
    return "YOLO (classes.txt)", dict(enumerate(names)), pictures


def _pictures(tree: Tree, path: str, value: str) -> list[str]:
    """Return the pictures that a value of data.yaml means: of a folder, or of a list of files.

    Such paths are of another machine more often than not ("../train/images", "/content/set/train"),
    so what counts is their longest end that exists below the folder.
    """
    place = _end(tree, path, value)
    if place is None:
        return []
    if not place.endswith(".txt"):
        start = "" if place == "." else f"{place}/"
        return [file for file in tree.ending(*PICTURES) if file.startswith(start)]
    lines = (tree.root / place).read_text("utf-8", "replace").split("\n")
    ends = (_end(tree, place, line.strip()) for line in lines if line.strip())
    return sorted({end for end in ends if end is not None and end.lower().endswith(PICTURES)})


def _end(tree: Tree, path: str, value: str) -> str | None:
    """Return the longest end of a path that exists beside a file, or below the root."""
    words = [word for word in value.replace("\\", "/").split("/") if word not in ("", ".", "..")]
    above = PurePosixPath(path).parent
    for start in range(len(words) + (value.strip("/") in ("", "."))):
        for place in dict.fromkeys((above, PurePosixPath())):
            end = place.joinpath(*words[start:]).as_posix()
            if end in tree.places:
                return end
    return None


def _labels(pictures: list[str], texts: set[str]) -> dict[str, str]:
    """Return the label file of each picture that has one: below labels/ for images/, or beside."""
    files: dict[str, str] = {}
    for picture in pictures:
        beside = PurePosixPath(picture).with_suffix(".txt")
        head, images, tail = f"/{beside}".rpartition("/images/")
        for file in (f"{head}/labels/{tail}".lstrip("/") if images else "", beside.as_posix()):
            if file in texts:
                files[picture] = file
                break
    return files


def _object(line: str, name: str, size: tuple[int, int]) -> DrawnObject:
    """Return the object of a line; what cannot be read is left for the reader of masks to name."""
    words = line.split()
    try:
        label, *values = map(float, words)
    except ValueError:
        number = words[0] if words[0].isdigit() else ""
        return DrawnObject(name, int(number) if number else None, line)
    number = int(label) if label.is_integer() else None
    height, width = size
    if len(values) in BOX:
        x, y, w, h = (v * (height if k % 2 else width) for k, v in enumerate(values[:4]))
        return DrawnObject(name, number, None, [x - w / 2, y - h / 2, w, h])
    polygon = [value * (height if k % 2 else width) for k, value in enumerate(values)]
    return DrawnObject(name, number, [polygon])

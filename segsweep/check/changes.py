"""What becomes of the entries of a file in its clean copy: every change, told where it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from segsweep.check.parts import Part, Single
from segsweep.check.pictures import Look
from segsweep.data.base import Record
from segsweep.data.formats.coco_file import CocoFile
from segsweep.data.formats.entries import EXACT, valid_id
from segsweep.data.sets.coco import Coco

OURS = ("images", "annotations", "categories")
IMAGE = {"height": "image", "width": "image", "file_name": "image"}
ANNOTATION = {  # keys: the code of their change
    "category_id": "category-renumbered",
    "image_id": "image-id",
    "bbox": "box-disagrees",
    "area": "area-disagrees",
    "iscrowd": "filled-in",
}
RENAMED = {
    "category-root": "left out: groups others",
    "category-name-twice": "called by name and id",
    "category-unnamed": "called by its id",
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


def written(
    copy: Copy, identity: Any, raw: dict[str, Any], new: dict[str, Any], codes: dict[str, str]
) -> dict[str, Any]:
    """Return an entry with its new values, and note those that differ; all of none are new."""
    for key, code in codes.items() if raw else ():
        if key not in raw:
            copy.log("filled-in", identity, f"{key} is filled in: {new[key]}")
        elif raw[key] != new[key]:
            copy.log(code, identity, f"{key} {raw[key]!r} is now {new[key]!r}")
    kept = {key: finite(value) for key, value in raw.items() if key not in new}
    for key in (key for key in kept if kept[key] != raw[key]):
        copy.log("not-finite", identity, f"{key} is null where it was not finite")
    return kept | new


def finite(value: Any) -> Any:
    """Return a value with null for every number that JSON does not know."""
    if isinstance(value, list):
        return [finite(each) for each in value]
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def tell_categories(copy: Copy, entries: list[Any], categories: list[dict[str, Any]]) -> None:
    """Note what becomes of the categories of a file, and of the annotations of other ones."""
    ids, file = {entry["name"]: entry["id"] for entry in categories}, coco_file(copy.part)
    strange = {key: name for key, name in file.categories.items() if name not in ids}
    for entry in (e for e in entries if isinstance(e, dict)):
        if (name := strange.get(valid_id(entry.get("category_id")))) is not None:
            left_out = f"left out: {name} is no class of train"
            copy.log("category-other-split", entry.get("id"), left_out)
    for key, name in file.categories.items():
        if name in strange.values():
            copy.log("category-extra", key, f"left out: {name} is no class of train")
        elif ids[name] != key:
            copy.log("category-renumbered", key, f"{name} is now {ids[name]}")
    for name in (name for name in ids if name not in file.categories.values()):
        copy.log("category-extra", ids[name], f"added: {name} is a class of train")
    for finding in copy.part.findings():
        for identity in finding.ids if finding.code in RENAMED else ():
            copy.log(finding.code, identity, RENAMED[finding.code])


def coco_file(part: Part) -> CocoFile:
    """Return what was read of a part as a COCO file."""
    assert isinstance(part.data, Coco)
    file = part.data.file(split_of(part))
    assert file is not None  # a set without val has no copy
    return file


def split_of(part: Part) -> str:
    """Return the split of a part."""
    return "train" if isinstance(part.data, Single) else part.name


def tell_dropped(copy: Copy, records: list[Record]) -> None:
    """Note what is left out of the copy, whose records are given."""
    for finding in copy.part.findings():
        told = finding.code == "category-other-split"  # by the name of its class
        for identity in finding.ids if finding.kind.drops and not told else ():
            copy.log(finding.code, identity, f"left out: {finding.kind.what}")
    kept = {id(annotation) for record in records for annotation in record.annotations}
    if isinstance(copy.part.data, Coco):
        every = [a for a in coco_file(copy.part).by_entry if a is not None]
    else:
        every = [a for look in copy.looks for a in look.record.annotations]
    for annotation in every:
        if id(annotation) not in kept:
            copy.log("picture", annotation.id, "left out with its picture")


def originals(
    copy: Copy, categories: list[dict[str, Any]]
) -> tuple[dict[Any, dict], dict[int, dict], dict[str, Any]]:
    """Return the entries of a COCO file by image id and by annotation, and its other keys.

    What becomes of its categories is noted.
    """
    data = copy.part.data
    content = data.found.original(split_of(copy.part)) if isinstance(data, Coco) else {}
    if not content:
        return {}, {}, {}
    file = coco_file(copy.part)
    tell_categories(copy, content["annotations"], categories)
    pairs = zip(file.by_entry, content["annotations"], strict=True)
    annotations = {id(annotation): entry for annotation, entry in pairs if annotation is not None}
    other_keys = finite({key: value for key, value in content.items() if key not in OURS})
    return keyed(content["images"]), annotations, other_keys


def keyed(entries: list[Any]) -> dict[Any, dict]:
    """Return entries of a file by their ids."""
    return {
        entry["id"]: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | float | str)
    }


def numbering(ids: list[Any], what: str, copy: Copy) -> Callable[[Any], int]:
    """Return what gives each its number: its own if all are good, else 1, 2 ... in order."""
    twice = len({*ids}) < len(ids)
    if not twice and all(isinstance(i, int) and 0 < i < EXACT for i in ids):
        return lambda identity: identity
    numbers = iter(range(1, len(ids) + 1))
    code = f"{what}-id-twice" if twice else f"{what}-id-zero" if 0 in ids else f"{what}-id-text"

    def again(identity: Any) -> int:
        new = next(numbers)
        if new != identity:
            copy.log(code, identity, f"is now {new}")
        return new

    return again

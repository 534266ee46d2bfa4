"""COCO annotation files: read once, checked wholly, before any training.

Reading raises nothing: what is wrong is a list of findings, what remains are records that can be
trusted. Training refuses a file with a fatal finding (`findings.accept`); check-data shows all.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Record
from segsweep.data.findings import Finding, Findings, accept
from segsweep.data.formats.instances import Defect, annotation

EXACT = 1 << 53  # ids from here on are not exact in every language
LARGEST = 178_956_970  # pixels of an image; Pillow reads no larger one
OWN = {"id", "file_name", "height", "width", "license", "flickr_url", "coco_url", "date_captured"}
"""What COCO itself says of an image; all other columns become `Record.meta`."""

Id = Any  # a whole number; text in files that training refuses


@dataclass
class CocoFile:
    """What can be used of an annotation file; categories of annotations are the ids of the file.

    `by_entry` has the annotation of each entry of the file, None for what is left out.
    """

    path: Path
    categories: dict[Id, str]  # id -> name, by rising id
    records: list[Record]
    findings: Findings
    by_entry: list[Annotation | None] = field(default_factory=list)

    def listed(self) -> list[Finding]:
        """Return what is wrong with the file, the worst first."""
        return self.findings.listed()


def read(path: Path) -> CocoFile:
    """Read a file for training. Raises UserError for fatal findings, warns of the others."""
    file = survey(path)
    accept(file.listed())
    return file


def survey(path: Path) -> CocoFile:
    """Read an annotation file and find what is wrong with it, without raising."""
    file = CocoFile(path, {}, [], Findings(str(path)))
    try:
        content = parse(path)
        if "images" in content:  # lists of test images have no annotations at all
            content.setdefault("annotations", [])
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise UserError(f"{path}: has no list {key!r}, so it is no COCO annotation file")
    except UserError as error:
        file.findings.add("file-unreadable", detail=str(error).removeprefix(f"{path}: "))
        return file
    return examine(file, content)


def examine(file: CocoFile, content: dict[str, list[Any]]) -> CocoFile:
    """Fill a file with what can be used of its content."""
    if not content["images"]:
        file.findings.add("no-images")
    file.categories = categories(content["categories"], file.findings)
    records = images(content["images"], file.findings)
    entries = content["annotations"]
    attach(file, entries, records)
    file.records = [record for record in records.values() if record is not None]
    file.categories = named(file, content["categories"])
    judge(file, entries)
    return file


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
    except (ValueError, RecursionError) as error:  # endless digits, endless brackets
        raise UserError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a COCO annotation object")
    return content


def valid_id(value: Any) -> Id:
    """Return an id: a whole number, also as 3.0, or text. None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int or isinstance(value, str) else None


def text(value: Any) -> str:
    """Return a name that can be printed and written, whatever the escapes of the file say."""
    return str(value).encode(errors="replace").decode()


def categories(entries: list[Any], findings: Findings) -> dict[Id, str]:
    """Return the declared names by rising id."""
    names: dict[Id, str] = {}
    for entry in entries:
        key = valid_id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get("name"), str):
            findings.add("category-broken", detail=text(entry)[:60])
            continue
        if key in names:
            findings.add("category-id-twice", key)
        if isinstance(key, str):
            findings.add("category-id-text", key)
        names[key] = text(entry["name"])
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def named(file: CocoFile, entries: list[Any]) -> dict[Id, str]:
    """Return the classes: grouping entries left out, equal names told apart by their ids.

    A grouping entry (the root of Roboflow exports) has no annotation, is the supercategory of
    another one and has none itself.
    """
    used = Counter(a.category for record in file.records for a in record.annotations)
    declared = [e for e in entries if isinstance(e, dict) and valid_id(e.get("id")) is not None]
    above = {valid_id(e["id"]): e.get("supercategory") for e in declared}
    classes: dict[Id, str] = {}
    for key, name in file.categories.items():
        children = (k for k, parent in above.items() if parent == name and k != key)
        is_root = above.get(key) in (None, "", "none", name) and next(children, None) is not None
        if is_root and not used[key]:
            file.findings.add("category-root", key, f"{key} {name!r}")
        elif name in classes.values():
            file.findings.add("category-name-twice", key, f"{key} {name!r}")
            classes[key] = f"{name} ({key})"
        else:
            classes[key] = name
        if not used[key] and not is_root:
            file.findings.add("category-empty", key, f"{key} {name!r}")
    return classes


def images(entries: list[Any], findings: Findings) -> dict[Id, Record | None]:
    """Return the records by id, still without annotations; None for an id that occurs twice."""
    records: dict[Id, Record | None] = {}
    names: Counter[str] = Counter()
    for entry in entries:
        try:
            record = image(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"has no {error}" if isinstance(error, KeyError) else str(error)
            key = entry.get("id") if isinstance(entry, dict) else None
            findings.add("image-broken", text(key), f"image {text(key)}: {why}")
            continue
        key = record.image_id
        if isinstance(key, str):
            findings.add("image-id-text", key)
        if key in records:
            findings.add("image-id-twice", key)
        records[key] = None if key in records else record
        names[record.file] += 1
    for name, count in names.items():
        if count > 1:
            findings.add("image-file-twice", name)
    return records


def image(entry: dict[str, Any]) -> Record:
    """Return an entry of `images`. Raises KeyError, TypeError or ValueError for a bad one."""
    key, height, width = (valid_id(entry[name]) for name in ("id", "height", "width"))
    if key is None:
        raise ValueError(f"its id {entry['id']!r} is no whole number")
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f"{entry['width']!r} x {entry['height']!r} pixels are no whole numbers")
    if min(height, width) < 1 or height * width > LARGEST:
        raise ValueError(f"it has {width}x{height} pixels")
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        raise ValueError(f"file_name {entry['file_name']!r} is no name")
    scalar = str | int | float | bool
    meta = {k: v for k, v in entry.items() if k not in OWN and isinstance(v, scalar)}
    return Record(key, text(entry["file_name"]), height, width, [], meta=meta)  # pyright: ignore[reportArgumentType]


def attach(file: CocoFile, entries: list[Any], records: dict[Id, Record | None]) -> None:
    """Append the usable annotations to their records."""
    known_ids: set[Id] = set()
    for entry in entries:
        number: Id = valid_id(entry.get("id")) if isinstance(entry, dict) else text(entry)[:60]
        usable = None
        try:
            record = home(entry, file.categories, records)
            number_checked(number, known_ids, file.findings)
            if record is not None:
                usable = annotation(entry, record, file.findings)
                usable.category, usable.id = valid_id(entry["category_id"]), number or 0
                record.annotations.append(usable)
        except Defect as defect:
            detail = f"annotation {number}: {defect.detail}" if defect.detail else ""
            name = "without id" if number is None else number
            file.findings.add(defect.code, name, detail)
        file.by_entry.append(usable)


def home(entry: Any, categories: dict[Id, str], records: dict[Id, Record | None]) -> Record | None:
    """Return the record of an annotation, None for one of several. Raises Defect."""
    fields = entry if isinstance(entry, dict) else {}
    for key in ("image_id", "category_id"):
        if valid_id(fields.get(key)) is None:
            raise Defect("annotation-broken", f"has no {key!r}")
    image, category = valid_id(fields["image_id"]), valid_id(fields["category_id"])
    if image not in records:
        raise Defect("annotation-orphan", f"there is no image {image!r}")
    if category not in categories:
        declared = ", ".join(map(str, categories))
        raise Defect("category-unknown", f"category {category!r} is none of {declared}")
    return records[image]


def number_checked(number: Id | None, known_ids: set[Id], findings: Findings) -> None:
    """Note ids that evaluators trip over; `seen` are those of the file so far."""
    if number is None or isinstance(number, str):
        findings.add("annotation-id-text", "without id" if number is None else number)
    if number in known_ids:
        findings.add("annotation-id-twice", number)
    if number == 0:
        findings.add("annotation-id-zero", number)
    if number is not None:
        known_ids.add(number)


def judge(file: CocoFile, entries: list[Any]) -> None:
    """Find what is wrong with the file as a whole and with images as a whole."""
    findings, dropped = file.findings, file.by_entry.count(None)
    has_mask = any(e.get("segmentation") for e in entries if isinstance(e, dict))
    crowds = [a.iscrowd for record in file.records for a in record.annotations]
    if not entries:
        findings.add("no-annotations")
    elif not has_mask:
        findings.add("boxes-only")
    elif dropped == len(entries):
        findings.add("nothing-usable")
    elif all(crowds):
        findings.add("all-crowd")
    elif dropped > len(entries) / 2:
        findings.add("mostly-dropped", detail=f"{dropped} of {len(entries)}")
    for record in file.records:
        if not record.annotations:
            findings.add("image-empty", record.image_id)
        elif all(a.iscrowd for a in record.annotations):
            findings.add("image-crowd-only", record.image_id)

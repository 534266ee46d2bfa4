"""COCO annotation files: read once, checked wholly, before any training.

Reading raises nothing: what is wrong is a list of findings, what remains are records that can be
trusted. Training refuses a file with a fatal finding (`findings.accept`); check-data shows all.
"""

from __future__ import annotations

import copy
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.config import words
from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Record
from segsweep.data.findings import Finding, Findings, accept
from segsweep.data.formats import suspects
from segsweep.data.formats.entries import Id, categories, images, is_exact, text, valid_id
from segsweep.data.formats.instances import Defect, annotation

if TYPE_CHECKING:
    from segsweep.data.formats.listing import Pictures


VAST = 4 << 30  # bytes of a packed file; unpacked ones may be larger


@dataclass
class CocoFile:
    """What can be used of an annotation file; categories of annotations are the ids of the file.

    `by_entry` has the annotation of each entry of the file, None for what is left out: boxes
    alone, too, where it `needs_masks`.
    """

    path: Path
    categories: dict[Id, str]  # id -> name, by rising id
    records: list[Record]
    findings: Findings
    by_entry: list[Annotation | None] = field(default_factory=list)
    needs_masks: bool = True

    def listed(self) -> list[Finding]:
        """Return what is wrong, the worst first; a copy helps only if it has objects."""
        left = any(record.annotations for record in self.records)
        return [replace(f, fixable=f.fixable and left) for f in self.findings.listed()]


def read(path: Path) -> CocoFile:
    """Read a file for training. Raises UserError for fatal findings, warns of the others."""
    file = survey(path)
    accept(file.listed())
    return file


def survey(path: Path, pictures: Pictures | None = None, needs_masks: bool = True) -> CocoFile:
    """Read an annotation file and find what is wrong with it, without raising.

    With `pictures`, its images are those that are there, and their files are paths.
    """
    file = CocoFile(path, {}, [], Findings(str(path)), needs_masks=needs_masks)
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
    return examine(file, content, pictures)


def examine(
    file: CocoFile, content: dict[str, list[Any]], pictures: Pictures | None = None
) -> CocoFile:
    """Fill a file with what can be used of its content."""
    if not content["images"]:
        file.findings.add("no-images")
    file.categories = categories(content["categories"], file.findings)
    entries = content["annotations"]
    records = images(content["images"], file.findings, pictures)
    before = copy.deepcopy(file.findings)
    attach(file, entries, records)
    there = [record for record in records.values() if record is not None]
    if pictures and (turned := suspects.turned(file.findings, entries, there, pictures)):
        file.findings, file.by_entry = before, []
        for record in there:
            record.annotations, record.complete = [], True
        for record in turned:
            record.height, record.width = record.width, record.height
            file.findings.add("picture-upright", record.file)
        attach(file, entries, records)
    suspects.mistaken(file.findings, entries, there)
    file.records = there
    file.categories = named(file, content["categories"])
    judge(file, entries)
    file.records = [r for r in there if pictures is None or pictures.holds(r.file)]
    return file


def parse(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raises UserError with line and column of a fault."""
    text = ""
    try:
        text = unpacked(path).decode("utf-8-sig")
        content = json.loads(text)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({why})") from error
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


def unpacked(path: Path) -> bytes:
    """Return the content of a file, also of one that is packed by gzip.

    Raises OSError, EOFError or zlib.error for a broken one, UserError for a packed one that would
    fill the memory.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.read_bytes()
    with gzip.open(path) as file:
        content = file.read(VAST + 1)
    if len(content) > VAST:
        raise UserError(f"{path}: is packed and holds more than {VAST >> 30} GiB; unpack it")
    return content


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


def attach(file: CocoFile, entries: list[Any], records: dict[Id, Record | None]) -> None:
    """Append the usable annotations to their records."""
    known_ids: set[Id] = set()
    for entry in entries:
        number: Id = valid_id(entry.get("id")) if isinstance(entry, dict) else text(entry)[:60]
        usable = record = None
        try:
            record = home(entry, file.categories, records)
            number_checked(number, known_ids, file.findings)
            if record is not None:
                usable = annotation(entry, record, file.findings, file.needs_masks)
                usable.category, usable.id = valid_id(entry["category_id"]), number or 0
                record.annotations.append(usable)
        except Defect as defect:
            if record is not None:
                record.complete = False
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
    if not is_exact(number):
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
    elif not has_mask and file.needs_masks:
        findings.add("boxes-only", detail=models_of_boxes())
    elif dropped == len(entries):
        findings.add("nothing-usable")
    elif all(crowds):
        findings.add("all-crowd")
    elif dropped > len(entries) / 2:
        findings.add("mostly-dropped", detail=f"{dropped} of {len(entries)}")
    for record in file.records:
        if record.negative:
            findings.add("image-empty", record.image_id)
        elif record.annotations and all(a.iscrowd for a in record.annotations):
            findings.add("image-crowd-only", record.image_id)


def models_of_boxes() -> str:
    """Name the models that find boxes alone."""
    able = [word for word, family in words("model").items() if not getattr(family, "masks", True)]
    return "model=" + ", ".join(able) if able else ""


def divided(file: CocoFile, keys: Mapping[str, Iterable[str]]) -> dict[str, CocoFile]:
    """Return a file as one for each split of names of pictures; the first has all findings."""
    files: dict[str, CocoFile] = {}
    for split, names in keys.items():
        chosen = set(names)
        records = [record for record in file.records if record.file in chosen]
        kept = {id(a) for record in records for a in record.annotations}
        by_entry = [a if id(a) in kept else None for a in file.by_entry]
        findings = Findings(str(file.path)) if files else file.findings
        files[split] = replace(file, records=records, by_entry=by_entry, findings=findings)
    return files

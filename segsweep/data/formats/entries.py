"""Entries of COCO files: ids, categories, and images with the pictures that they name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.base import Record
from segsweep.data.findings import Findings

if TYPE_CHECKING:
    from segsweep.data.formats.listing import Pictures

EXACT = 1 << 53  # ids from here on are not exact in every language
LARGEST = 178_956_970  # pixels of an image; Pillow reads no larger one
OWN = {"id", "file_name", "height", "width", "license", "flickr_url", "coco_url", "date_captured"}
"""What COCO itself says of an image; all other columns become `Record.meta`."""

Id = Any  # a whole number; text in files that training refuses


def valid_id(value: Any) -> Id:
    """Return an id: a whole number, also as 3.0, or text. None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int or isinstance(value, str) else None


def is_exact(key: Id) -> bool:
    """Tell whether an id is a whole number that every language holds exactly."""
    return isinstance(key, int) and abs(key) < EXACT


def text(value: Any) -> str:
    """Return a name that can be printed and written, whatever the escapes of the file say."""
    return str(value).encode(errors="replace").decode()


def categories(entries: list[Any], findings: Findings) -> dict[Id, str]:
    """Return the declared names by rising id."""
    names: dict[Id, str] = {}
    for entry in entries:
        key = valid_id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            findings.add("category-broken", detail=text(entry)[:60])
            continue
        if key in names:
            findings.add("category-id-twice", key)
        if not is_exact(key):
            findings.add("category-id-text", key)
        name = entry.get("name")
        name = text(name) if isinstance(name, str | int | float) else ""
        if not name.strip():
            findings.add("category-unnamed", key, f"category {key}")
        names[key] = name if name.strip() else f"category {key}"
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def images(
    entries: list[Any], findings: Findings, pictures: Pictures | None
) -> dict[Id, Record | None]:
    """Return the records by id, still without annotations; None for an id that cannot be used."""
    records: dict[Id, Record | None] = {}
    names: Counter[str] = Counter()
    missing: list[str] = []
    for entry in entries:
        key = valid_id(entry.get("id")) if isinstance(entry, dict) else None
        try:
            record = image(sized(entry, findings, pictures) if pictures else entry)
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            why = f"has no {error}" if isinstance(error, KeyError) else str(error)
            name = text(entry.get("id") if isinstance(entry, dict) else None)
            findings.add("image-broken", name, f"image {name}: {why}")
            records |= {} if key is None else {key: None}
            continue
        key = record.image_id
        if not is_exact(key):
            findings.add("image-id-text", key)
        if key in records:
            findings.add("image-id-twice", key)
        records[key] = None if key in records else record
        if pictures and not located(record, findings, pictures):
            missing.append(record.file)
        names[record.file] += 1
    for name, count in names.items():
        if count > 1:
            findings.add("image-file-twice", name)
    if pictures:
        tell_missing(missing, len(records), findings, pictures)
    return records


def located(record: Record, findings: Findings, pictures: Pictures) -> bool:
    """Give a record the path of its picture; tell whether there is one."""
    path = pictures.find(record.file)
    if path is None and (path := pictures.respelled(record.file)):
        findings.add("picture-name", record.file, f"{record.file} is {path}")
    record.file = path or record.file
    return path is not None


def tell_missing(missing: list[str], of: int, findings: Findings, pictures: Pictures) -> None:
    """Note pictures that are not there, and which ones may be meant."""
    start = f"{len(missing)} of {of} images are not in {pictures.folder}: "
    for place, name in enumerate(missing):
        near = pictures.near(name)
        hint = f"{name} (is it {near}?)" if near else name
        findings.add("picture-missing", name, hint if place else start + hint)


def sized(entry: dict[str, Any], findings: Findings, pictures: Pictures) -> dict[str, Any]:
    """Return an entry with the size of its picture, as it is shown, where it tells none."""
    if entry.get("height") is not None and entry.get("width") is not None:
        return entry
    name = entry["file_name"]
    path = pictures.find(name) or pictures.respelled(name)
    if path is None:
        return entry
    height, width = pictures.sizes(path)[1]
    findings.add("image-size-missing", name)
    return entry | {"height": height, "width": width}


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

"""Mistakes that a whole annotation file has in common, told by how its objects lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.base import Record
from segsweep.data.findings import Findings
from segsweep.data.formats import masks
from segsweep.data.formats.entries import valid_id
from segsweep.data.formats.instances import Bounds, agrees, is_number, unnested, whole_numbers

if TYPE_CHECKING:
    from segsweep.data.formats.listing import Pictures

SLACK = 2  # pixels that an outline may lie beyond the frame
MOST = 0.9  # of the boxes of a file: if so many are wrong, the masks may be
PERCENT = 100
LEAVING = {"outside", "sticks-out"}
MISPLACED = ("box-disagrees", "outside")


def turned(
    findings: Findings, entries: Sequence[Any], records: Sequence[Record], pictures: Pictures
) -> list[Record]:
    """Return the images whose told size is that of the stored picture, their objects upright.

    Some exports tell the stored size of a photograph with an EXIF orientation and outlines of what
    was shown. Objects that leave the told frame but fit the turned one prove it, for all such
    photographs of a file unless others speak against it.
    """
    told = {i for code in LEAVING for i in findings.by_code.get(code, ([],))[0]} | {None}
    some = {e["image_id"] for e, _ in rings(e for e in entries if id_of(e) in told)}
    if not LEAVING & findings.by_code.keys() or not some:
        return []
    far = extents(e for e in entries if id_of(e, "image_id") in some)
    leaving = [r for r in records if fits(far.get(r.image_id), r.width, r.height) is False]
    proof = [r for r in leaving if fits(far[r.image_id], r.height, r.width)]
    if not any(is_stored(record, pictures) for record in proof):
        return []
    far, proved = extents(entries), {record.image_id for record in proof}
    candidates = [record for record in records if is_stored(record, pictures)]
    against = [
        r
        for r in candidates
        if fits(far.get(r.image_id), r.width, r.height)
        and not fits(far.get(r.image_id), r.height, r.width)
    ]
    return [r for r in candidates if not against or r.image_id in proved]


def id_of(entry: Any, key: str = "id") -> Any:
    """Return an id of an entry, None where it has none."""
    return valid_id(entry.get(key)) if isinstance(entry, dict) else None


def fits(extent: tuple[float, float] | None, width: int, height: int) -> bool | None:
    """Tell whether an extent lies in a frame; None where there are no objects."""
    return extent and extent[0] <= width + SLACK and extent[1] <= height + SLACK


def is_stored(record: Record, pictures: Pictures) -> bool:
    """Tell whether the told size is only that of the stored picture."""
    if not pictures.holds(record.file):
        return False
    try:
        stored, upright = pictures.sizes(record.file)
    except UserError:
        return False
    return (record.height, record.width) == stored != upright


def extents(entries: Iterable[Any]) -> dict[Any, tuple[float, float]]:
    """Return how far right and down the polygons of each image reach."""
    far: dict[Any, tuple[float, float]] = {}
    for entry, ring in rings(entries):
        right, bottom = far.get(entry["image_id"], (0, 0))
        far[entry["image_id"]] = max(right, *ring[0::2]), max(bottom, *ring[1::2])
    return far


def rings(entries: Iterable[Any]) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield all polygons of a file that are lists of numbers, with their entries."""
    for entry in entries:
        ids = isinstance(entry, dict) and isinstance(entry.get("image_id"), int | float | str)
        polygons = entry.get("segmentation") if ids else None
        for ring in unnested(polygons) if isinstance(polygons, list) else ():
            if isinstance(ring, list) and len(ring) > 5 and all(map(is_number, ring)):
                yield entry, ring


def mistaken(findings: Findings, entries: Sequence[Any], records: Sequence[Record]) -> None:
    """Find coordinates in parts of the picture, and masks in another order than that of COCO.

    Where most boxes are not those of their masks, the masks are the suspects: they are read in the
    ways that are known as mistakes, and compared with the boxes again.
    """
    sides = [min(record.height, record.width) for record in records]
    if within(entries, 1):
        findings.add("coordinates-relative")
    elif len(entries) >= 8 and min(sides, default=0) > 1.5 * PERCENT and within(entries, PERCENT):
        findings.add("coordinates-percent")
    counts = [len(findings.by_code[code][0]) for code in MISPLACED if code in findings.by_code]
    if 2 * sum(counts) <= len(entries):
        return
    by_id = {record.image_id: record for record in records}
    boxed = [
        (entry, by_id[valid_id(entry["image_id"])])
        for entry in entries
        if isinstance(entry, dict)
        and entry.get("segmentation")
        and is_box(entry.get("bbox"))
        and valid_id(entry.get("image_id")) in by_id
    ]
    fitting = [
        code for code, fits in READINGS.items() if 2 * sum(fits(*b) for b in boxed) > len(boxed)
    ]
    if fitting and fitting[0]:
        for code in MISPLACED:
            findings.by_code.pop(code, None)
        findings.add(fitting[0])
    elif not fitting and len(boxed) > 3 and sum(counts) >= MOST * len(boxed):
        findings.add("masks-suspect")


def exchanged(entry: dict[str, Any], record: Record) -> bool:
    """Tell whether the polygons of an object fit its box with x and y exchanged."""
    if not (polygons := [ring for _, ring in rings([entry])]):
        return False
    top, left, bottom, right = bounds(polygons)
    return agrees(entry["bbox"], (left, top, right, bottom), record)


def by_rows(entry: dict[str, Any], record: Record) -> bool:
    """Tell whether the RLE of an object fits its box if it runs by rows."""
    if not (box := box_of_rle(entry["segmentation"], (record.width, record.height))):
        return False
    top, left, bottom, right = box
    return agrees(entry["bbox"], (left, top, right, bottom), record)


def as_corners(entry: dict[str, Any], record: Record) -> bool:
    """Tell whether an object fits its box if this is x, y, x, y."""
    polygons = [ring for _, ring in rings([entry])]
    frame = (record.height, record.width)
    outline = bounds(polygons) if polygons else box_of_rle(entry["segmentation"], frame)
    x, y, right, bottom = entry["bbox"]
    return bool(outline) and agrees([x, y, right - x, bottom - y], outline, record)


def box_of_rle(segmentation: Any, frame: tuple[int, int]) -> Bounds | None:
    """Return the box of an RLE whose runs fill a frame of (height, width), if it is one."""
    try:
        rle = whole_numbers(segmentation) | {"size": list(frame)}
        x, y, width, height = masks.bbox(masks.to_rle(rle, frame))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return x, y, x + width, y + height


READINGS: dict[str, Callable[[dict[str, Any], Record], bool]] = {
    "polygon-yx": exchanged,
    "rle-rows": by_rows,
    "": as_corners,  # then the boxes are wrong, not the masks
}


def is_box(box: Any) -> bool:
    """Tell whether a value is a box of numbers."""
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))


def bounds(polygons: Sequence[Sequence[float]]) -> Bounds:
    """Return the box of all corners of polygons."""
    xs, ys = ([v for ring in polygons for v in ring[axis::2]] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def within(entries: Sequence[Any], bound: float) -> bool:
    """Tell whether all coordinates of polygons lie from 0 to a bound; most objects must be such."""
    number = 0
    for _, ring in rings(entries):
        if min(ring) < 0 or max(ring) > bound:
            return False
        number += 1
    return 2 * number > len(entries)

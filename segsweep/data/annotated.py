"""Pictures of anybody by the ids of a COCO annotation file, so that it can score the results."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.base import Record
from segsweep.data.findings import accept
from segsweep.data.formats.coco_file import CocoFile, survey
from segsweep.data.formats.listing import canonical
from segsweep.data.inputs import InputFile

OF_IDS = ("file-", "image-", "category-")  # findings that count here; objects may have any fault
SHOWN = 5  # names in a message


def matched(
    path: Path, inputs: Sequence[InputFile], data: dict[str, Any]
) -> tuple[dict[InputFile, Record], list[int], list[str]]:
    """Return the records that a file has of some pictures, ids of the classes of a run, remarks.

    `data` is what the record of the run says of its data. Raises UserError where this is not clear.
    """
    file = opened(path)
    known, remarks = records(file, inputs)
    ids, lacking = category_ids(file, data)
    return known, ids, [*remarks, *lacking]


def opened(path: Path) -> CocoFile:
    """Read an annotation file for its ids alone. Raises UserError where these are not clear."""
    file = survey(path)
    accept([f for f in file.listed() if f.level == "fatal" and f.code.startswith(OF_IDS)])
    return file


def records(
    file: CocoFile, inputs: Sequence[InputFile]
) -> tuple[dict[InputFile, Record], list[str]]:
    """Return what a file says of the pictures among some, in its order, and what is left out.

    A picture belongs to the image of its name; or to one whose path ends like its own, as folders
    are called from elsewhere. Those of no image are left out: splits often share a folder. Raises
    UserError for pictures of several images, and where none has any.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in file.records:
        by_name[canonical(record.file).rpartition("/")[2]].append(record)
    matches = {
        picture: _images(canonical(picture.name.as_posix()), by_name[canonical(picture.name.name)])
        for picture in inputs
    }
    claims = Counter(record.image_id for images in matches.values() for record in images)
    unclear = [
        picture
        for picture, images in matches.items()
        if len(images) > 1 or any(claims[r.image_id] > 1 for r in images)
    ]
    if unclear:
        raise UserError(
            f"annotations={file.path}: which image is meant is not clear for {_listed(unclear)}; "
            "images= must be the folder of its file names"
        )
    by_id = {images[0].image_id: picture for picture, images in matches.items() if images}
    if not by_id:
        names = ", ".join(record.file for record in file.records[:SHOWN]) or "it has none"
        raise UserError(f"annotations={file.path}: none of its images ({names}) is below images=")
    remarks = []
    if others := [p for p in inputs if not matches[p] and p.path != file.path]:
        remarks.append(f"left out: {_listed(others)}, which {file.path} does not hold")
    if absent := len(file.records) - len(by_id):
        total = len(file.records)
        remarks.append(f"{file.path}: {absent} of its {total} images are not below images=")
    return {by_id[r.image_id]: r for r in file.records if r.image_id in by_id}, remarks


def category_ids(file: CocoFile, data: dict[str, Any]) -> tuple[list[int], list[str]]:
    """Return the id of each class of a run, that of the file by name, else the run's own; remarks.

    Raises UserError where no name agrees, or an own id means another category of the file.
    """
    classes, by_name = data["classes"], {name: key for key, name in file.categories.items()}
    by_class = dict(zip(classes, data["category_ids"], strict=True))
    lacking = [name for name in classes if name not in by_name]
    if len(lacking) == len(classes) or any(by_class[name] in file.categories for name in lacking):
        raise UserError(
            f"annotations={file.path}: has no category {', '.join(lacking)} (but "
            f"{', '.join(f'{key} {name}' for key, name in file.categories.items())}); rename them "
            "there as the run does"
        )
    remark = f"{file.path}: has no category {', '.join(lacking)}; they keep the ids of the run"
    return [by_name.get(name, by_class[name]) for name in classes], [remark] if lacking else []


def _images(path: str, same: Sequence[Record]) -> list[Record]:
    """Return those of some images that a path means: of the same path, else one ends the other."""
    names = {record.image_id: f"/{canonical(record.file)}" for record in same}
    exact = [record for record in same if names[record.image_id] == f"/{path}"]
    return exact or [
        record
        for record in same
        if names[record.image_id].endswith(f"/{path}")
        or f"/{path}".endswith(names[record.image_id])
    ]


def _listed(pictures: Sequence[InputFile]) -> str:
    names = [picture.name.as_posix() for picture in pictures[:SHOWN]]
    more = [f"{len(pictures) - SHOWN} more"] if len(pictures) > SHOWN else []
    return ", ".join(names + more)

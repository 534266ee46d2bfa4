"""Pictures of a folder by the ids of a COCO annotation file, so that it can score the results."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.base import Record
from segsweep.data.findings import accept
from segsweep.data.formats.coco_file import CocoFile, survey

OF_IDS = ("file-", "image-", "category-")  # findings that count here; objects may have any fault
SHOWN = 5  # names in an error


def opened(path: Path) -> CocoFile:
    """Read an annotation file for its ids alone. Raises UserError where these are not clear."""
    file = survey(path)
    accept([f for f in file.listed() if f.level == "fatal" and f.code.startswith(OF_IDS)])
    return file


def records(file: CocoFile, place: Path, found: Sequence[Path]) -> dict[Path, Record]:
    """Return what a file says of the pictures among `found`, in the order of the file.

    A picture belongs to the image of its path below `place`; or to one whose path ends like its
    own, as folders are called from elsewhere. Those of no image are left out: splits often share a
    folder. Raises UserError for pictures of several images, and where none has any.
    """
    root = place if place.is_dir() else place.parent
    named: dict[str, list[Record]] = defaultdict(list)
    for record in file.records:
        named[_slashed(record.file).rpartition("/")[2]].append(record)
    matches = {p: _images(p.relative_to(root).as_posix(), named[p.name]) for p in found}
    claims = Counter(record.image_id for own in matches.values() for record in own)
    unclear = [
        p for p, own in matches.items() if len(own) > 1 or any(claims[r.image_id] > 1 for r in own)
    ]
    if unclear:
        raise UserError(
            f"annotations={file.path}: which image is meant is not clear for "
            f"{_listed(unclear, root)}; images={place} must be the folder of its file names"
        )
    paths = {own[0].image_id: path for path, own in matches.items() if own}
    if not paths:
        names = ", ".join(record.file for record in file.records[:SHOWN]) or "it has none"
        raise UserError(f"annotations={file.path}: none of its images ({names}) is below {place}")
    if others := [path for path in found if not matches[path] and path != file.path]:
        print(f"left out: {_listed(others, root)}, which {file.path} does not hold")
    if absent := len(file.records) - len(paths):
        print(f"{file.path}: {absent} of its {len(file.records)} images are not in {place}")
    return {paths[r.image_id]: r for r in file.records if r.image_id in paths}


def category_ids(file: CocoFile, data: dict[str, Any]) -> list[int]:
    """Return the id of each class of a run: that of the file by name, else the run's own.

    Raises UserError where no name agrees, or an own id means another category of the file.
    """
    classes, known = data["classes"], {name: key for key, name in file.categories.items()}
    own = dict(zip(classes, data["category_ids"], strict=True))
    lacking = [name for name in classes if name not in known]
    if len(lacking) == len(classes) or any(own[name] in file.categories for name in lacking):
        raise UserError(
            f"annotations={file.path}: has no category {', '.join(lacking)} (but "
            f"{', '.join(f'{key} {name}' for key, name in file.categories.items())}); rename them "
            "there as the run does"
        )
    if lacking:
        print(f"{file.path}: has no category {', '.join(lacking)}; they keep the ids of the run")
    return [known.get(name, own[name]) for name in classes]


def _images(path: str, same: Sequence[Record]) -> list[Record]:
    """Return those of some images that a path means: of the same path, else one ends the other."""
    own = {record.image_id: f"/{_slashed(record.file)}" for record in same}
    exact = [record for record in same if own[record.image_id] == f"/{path}"]
    return exact or [
        record
        for record in same
        if own[record.image_id].endswith(f"/{path}") or f"/{path}".endswith(own[record.image_id])
    ]


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _listed(paths: Sequence[Path], root: Path) -> str:
    names = [path.relative_to(root).as_posix() for path in paths[:SHOWN]]
    more = [f"{len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    return ", ".join(names + more)

"""A folder of pictures as batches, as the model of a run sees its own; annotations are optional.

A COCO annotation file gives the pictures its ids, so that it can score the results.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.base import DataSet, Record
from segsweep.data.findings import accept
from segsweep.data.formats.coco_file import CocoFile, survey
from segsweep.data.formats.images import Levels, read_image
from segsweep.data.formats.listing import canonical

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.loader import Batch

OF_IDS = ("file-", "image-", "category-")  # findings that count here; objects may have any fault
SHOWN = 5  # names in a message


def files(place: Path, leave: Path | None = None) -> list[Path]:
    """Return all files below a folder by name, or the one file; hidden ones and `leave` are not.

    Raises UserError where there is none, and where `leave` is the folder itself.
    """
    leave = leave and leave.resolve()
    if place.resolve() == leave:
        raise UserError(f"out={leave}: must be another folder than images=")
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"images={place}: there is no such folder or file")
    paths = []
    for where, folders, names in os.walk(place, followlinks=True):
        shown = [name for name in folders if name[0] != "."]
        folders[:] = [name for name in shown if Path(where, name).resolve() != leave]
        paths += [Path(where, name) for name in names if name[0] != "."]
    if not paths:
        raise UserError(f"images={place}: the folder has no files")
    return sorted(paths)


@dataclass
class Folder:
    """Files as batches of at most `batch_size`, resized as `data` are for evaluation.

    A picture's id is its place among the files, from 1 on. One that is `known` must have the size
    of its record. `levels` are those of the run's own pictures. `pixels` holds those of the batch,
    by id; `skipped` tells of each file that cannot be read why.
    """

    files: Sequence[Path]
    data: DataSet
    batch_size: int
    known: Mapping[Path, Record] = field(default_factory=dict)
    levels: Levels | None = None
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Batch]:
        """Read pictures of any size, mode and orientation, batch by batch."""
        for start in range(0, len(self.files), self.batch_size):
            self.pixels = {}
            part = self.files[start : start + self.batch_size]
            for number, path in enumerate(part, start=start + 1):
                record = self.known.get(path)
                size = (record.height, record.width) if record else None
                try:
                    self.pixels[number] = read_image(path, size, self.levels)
                except UserError as error:
                    reason = str(error).removeprefix(f"{path}: ")
                    self.skipped[path] = reason.removesuffix("; replace the file")
            if self.pixels:
                yield self._batch()

    def __len__(self) -> int:
        """Batches, if every one has a picture."""
        return -(-len(self.files) // self.batch_size)

    def _batch(self) -> Batch:
        from segsweep.data.loader import collate
        from segsweep.data.transforms import evaluation_geometry, sample

        samples = []
        for number, pixels in self.pixels.items():
            record = Record(number, "", pixels.shape[0], pixels.shape[1], [])
            samples.append(sample(pixels, record, evaluation_geometry(self.data, record)))
        return collate(samples, self.data)


def opened(path: Path) -> CocoFile:
    """Read an annotation file for its ids alone. Raises UserError where these are not clear."""
    file = survey(path)
    accept([f for f in file.listed() if f.level == "fatal" and f.code.startswith(OF_IDS)])
    return file


def records(
    file: CocoFile, place: Path, paths: Sequence[Path]
) -> tuple[dict[Path, Record], list[str]]:
    """Return what a file says of the pictures among `paths`, in its order, and what is left out.

    A picture belongs to the image of its path below `place`; or to one whose path ends like its
    own, as folders are called from elsewhere. Those of no image are left out: splits often share a
    folder. Raises UserError for pictures of several images, and where none has any.
    """
    root = place if place.is_dir() else place.parent
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in file.records:
        by_name[canonical(record.file).rpartition("/")[2]].append(record)
    matches = {
        p: _images(canonical(p.relative_to(root).as_posix()), by_name[canonical(p.name)])
        for p in paths
    }
    claims = Counter(record.image_id for images in matches.values() for record in images)
    unclear = [
        path
        for path, images in matches.items()
        if len(images) > 1 or any(claims[r.image_id] > 1 for r in images)
    ]
    if unclear:
        raise UserError(
            f"annotations={file.path}: which image is meant is not clear for "
            f"{_listed(unclear, root)}; images={place} must be the folder of its file names"
        )
    by_id = {images[0].image_id: path for path, images in matches.items() if images}
    if not by_id:
        names = ", ".join(record.file for record in file.records[:SHOWN]) or "it has none"
        raise UserError(f"annotations={file.path}: none of its images ({names}) is below {place}")
    remarks = []
    if others := [path for path in paths if not matches[path] and path != file.path]:
        remarks.append(f"left out: {_listed(others, root)}, which {file.path} does not hold")
    if absent := len(file.records) - len(by_id):
        remarks.append(
            f"{file.path}: {absent} of its {len(file.records)} images are not in {place}"
        )
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


def _listed(paths: Sequence[Path], root: Path) -> str:
    names = [path.relative_to(root).as_posix() for path in paths[:SHOWN]]
    more = [f"{len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    return ", ".join(names + more)

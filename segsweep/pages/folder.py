"""A folder of pictures as batches, as the model of a run sees its own; no annotations needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.data.base import DataSet, Record
from segsweep.data.formats.images import read_image
from segsweep.data.loader import Batch, collate
from segsweep.data.transforms import evaluation_geometry, sample

if TYPE_CHECKING:
    import numpy as np


def files(place: Path, leave: Path) -> list[Path]:
    """Return all files below a folder by name, or the one file; hidden ones and `leave` are not.

    Raises UserError where there is none, and where `leave` is the folder itself.
    """
    leave = leave.resolve()
    if place.resolve() == leave:
        raise UserError(f"out={leave}: must be another folder than images=")
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"images={place}: there is no such folder or file")
    found = []
    for where, folders, names in os.walk(place, followlinks=True):
        kept = [name for name in folders if name[0] != "."]
        folders[:] = [name for name in kept if Path(where, name).resolve() != leave]
        found += [Path(where, name) for name in names if name[0] != "."]
    if not found:
        raise UserError(f"images={place}: the folder has no files")
    return sorted(found)


@dataclass
class Folder:
    """Files as batches of at most `batch_size`, resized as `data` are for evaluation.

    A picture's id is its place among the files, from 1 on. One that is `known` must have the size
    of its record. `pixels` holds those of the batch, by id; `skipped` tells of each file that
    cannot be read why.
    """

    files: Sequence[Path]
    data: DataSet
    batch_size: int
    known: Mapping[Path, Record] = field(default_factory=dict)
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
                    self.pixels[number] = read_image(path, size)
                except UserError as error:
                    reason = str(error).removeprefix(f"{path}: ")
                    self.skipped[path] = reason.removesuffix("; replace the file")
            if self.pixels:
                yield self._batch()

    def __len__(self) -> int:
        """Batches, if every one has a picture."""
        return -(-len(self.files) // self.batch_size)

    def _batch(self) -> Batch:
        samples = []
        for number, pixels in self.pixels.items():
            record = Record(number, "", pixels.shape[0], pixels.shape[1], [])
            samples.append(sample(pixels, record, evaluation_geometry(self.data, record)))
        return collate(samples, self.data)

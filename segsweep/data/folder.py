"""Pictures of anybody as batches, as the model of a run sees its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.data import video
from segsweep.data.base import DataSet, Record
from segsweep.data.formats.images import Levels, read_image
from segsweep.data.geometry import evaluation_geometry
from segsweep.data.inputs import InputFile

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.loader import Batch


LARGE = 192 << 20  # bytes of the pictures of a batch, from which on no other is read


@dataclass(frozen=True)
class Shot:
    """One picture: its id, its file, its pixels; of a video also which one and when it is."""

    image_id: int
    file: InputFile
    pixels: np.ndarray  # (H, W, 3) uint8
    frame: int | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The name of its file; of a video with the number of the picture: `clip.mp4#12`."""
        return self._numbered(self.file.name.as_posix())

    @property
    def path(self) -> Path:
        """The path of its file, in the same way."""
        return Path(self._numbered(str(self.file.path)))

    def _numbered(self, text: str) -> str:
        return text if self.frame is None else f"{text}#{self.frame}"


@dataclass
class Folder:
    """Files as batches of at most `batch_size`, resized as `data` are for evaluation.

    A batch of large pictures ends early, as all of them are in memory until they are drawn.
    A picture's id is its place among all, from 1 on. One that is `known` has the id of its record
    and must have its size. `levels` are those of the run's own pictures. Of a video each `every`-th
    picture counts. `shots` are those of the batch, by id; `skipped` tells of each file that cannot
    be read why.
    """

    files: Sequence[InputFile]
    data: DataSet
    batch_size: int
    known: Mapping[InputFile, Record] = field(default_factory=dict)
    levels: Levels | None = None
    every: int = 1
    shots: dict[int, Shot] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Batch]:
        """Read pictures of any size, mode and orientation, batch by batch."""
        self.shots = {}
        for shot in self._shots():
            self.shots[shot.image_id] = shot
            large = sum(kept.pixels.nbytes for kept in self.shots.values()) >= LARGE
            if large or len(self.shots) == self.batch_size:
                yield self._batch()
                self.shots = {}
        if self.shots:
            yield self._batch()

    def __len__(self) -> int:
        """Batches, if every file can be read, and videos are as long as they say."""
        pictures = sum(self._pictures(file) for file in self.files)
        return -(-pictures // self.batch_size)

    def _pictures(self, file: InputFile) -> int:
        try:
            return -(-video.extent(file.path)[0] // self.every) if file.is_video else 1
        except UserError:
            return 0

    def _shots(self) -> Iterator[Shot]:
        numbers = count(1)
        for file in self.files:
            try:
                if file.is_video:
                    for frame in video.frames(file.path, self.every):
                        place = frame.number, frame.seconds
                        yield Shot(next(numbers), file, frame.pixels, *place)
                else:
                    yield self._picture(file, next(numbers))
            except UserError as error:
                reason = str(error).removeprefix(f"{file.path}: ")
                self.skipped[file.path] = reason.removesuffix("; replace the file")

    def _picture(self, file: InputFile, number: int) -> Shot:
        record = self.known.get(file)
        size = (record.height, record.width) if record else None
        image_id = record.image_id if record else number
        return Shot(image_id, file, read_image(file.path, size, self.levels))

    def _batch(self) -> Batch:
        from segsweep.data.loader import collate
        from segsweep.data.transforms import sample

        samples = []
        for shot in self.shots.values():
            height, width, _ = shot.pixels.shape
            record = Record(shot.image_id, "", height, width, [])
            samples.append(sample(shot.pixels, record, evaluation_geometry(self.data, record)))
        return collate(samples, self.data)

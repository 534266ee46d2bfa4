"""Single digits cut out of the embedded scenes: which is it?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, ClassVar

from segsweep.data.base import Record
from segsweep.data.labelled import check_classes, class_of, filling
from segsweep.data.sets.digits import Digits

if TYPE_CHECKING:
    import numpy as np

ROOM = 0.2  # of its longer side, around a digit on all sides
Cut = tuple[slice, slice]  # rows, columns of a scene


@dataclass
class DigitsLabel(Digits):
    """A digit of each scene of one domain, with what is around it; its class is to be told.

    Of the digits of a scene it is the one whose class was shown least in the scenes before, so
    that classes are even; of several the first. Domains with one class (clean) are refused.
    """

    task: ClassVar[str] = "label"
    background: ClassVar[bool] = False
    pictures_of: ClassVar[str] = "digits"

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a digit. (H, W, 3) uint8 RGB"""
        scene, _, number = record.file.rpartition("#")
        return self.scene(scene).image[self._cut(scene, int(number))]

    def fingerprint(self) -> str:
        """Return a hash of what is drawn, and of how digits are cut out of it."""
        return sha256(repr((super().fingerprint(), "label", ROOM)).encode()).hexdigest()[:12]

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        numbers = {"train": self.train, "val": self.val}
        records = {split: self._pictures(split, number) for split, number in numbers.items()}
        check_classes(self, *([class_of(r) for r in each] for each in records.values()))
        return records

    def _pictures(self, split: str, number: int) -> list[Record]:
        """Cut out so many digits; scenes that show none are passed over."""
        records: list[Record] = []
        shown: Counter[int] = Counter()
        for file in (f"{split}/{index}" for index in count()):
            if len(records) == number:
                return records
            labels = self.scene(file).labels
            if not labels:
                continue
            chosen = min(range(len(labels)), key=lambda k: shown[labels[k]])
            shown[labels[chosen]] += 1
            rows, columns = self._cut(file, chosen)
            size = rows.stop - rows.start, columns.stop - columns.start
            place = len(records) + 1
            answer = filling(labels[chosen], size, place)
            records.append(Record(place, f"{file}#{chosen}", *size, [answer]))
        raise AssertionError

    def _cut(self, file: str, number: int) -> Cut:
        """Return the square around a digit of a scene, as far as the scene goes."""
        import numpy as np

        mask = self.scene(file).masks[number]
        ends = [np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)]
        half = (0.5 + ROOM) * (max(last - first for first, last in ends) + 1)
        centres = [(first + last + 1) / 2 for first, last in ends]
        rows, columns = (
            slice(max(0, int(c - half)), min(self.side, int(c + half + 1))) for c in centres
        )
        return rows, columns

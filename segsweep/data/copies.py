"""Smaller copies of the pictures of a COCO set: made once, in the cache of converted sets.

records --conversion, in processes--> pictures and annotations in the cache --> records
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from segsweep.data.items import Content, Facts, Item

if TYPE_CHECKING:
    from segsweep.data.base import DataSet, Record


@dataclass
class Copies:
    """Some splits of a set with a longest side of at most `longest` pixels.

    `items` gives the pictures of a split, whose annotations are their records. Their conversion is
    that of publishers' sets; images and objects keep their names and numbers.
    """

    data: DataSet
    longest: int
    cache: str | None
    items: Callable[[str], list[Item]]
    splits: tuple[str, ...]

    facts: ClassVar[Facts] = Facts("copies of a COCO set", "", "", "", images={})

    @property
    def name(self) -> str:
        """The word of the set."""
        return self.data.name

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """The images of each split at the size that they are stored in. Converts at first."""
        from segsweep.data.conversion import convert
        from segsweep.data.store import ensure, read_records

        ensure(self.converted, lambda new: convert(self, self._chosen, new, self.data.levels))
        stored = {split: read_records(self.converted / f"{split}.json") for split in self.splits}
        return {
            split: [
                copied(r, item.annotation) for r, item in zip(stored[split], items, strict=True)
            ]
            for split, items in self._chosen.items()
        }

    @property
    def converted(self) -> Path:
        """The folder of the converted set, which may be yet to come."""
        from segsweep.data.store import cache_folder

        return cache_folder(self.cache) / f"{self.name}-{self._key}"

    @cached_property
    def _key(self) -> str:
        """The hash of what is converted, and how."""
        from segsweep.data.store import content_hash

        levels = self.data.levels and asdict(self.data.levels)
        recipe = {"set": "copies", "longest": self.longest, "levels": levels}
        return content_hash(recipe | {"classes": self.classes()}, self._chosen)

    @cached_property
    def files(self) -> frozenset[str]:
        """The names of the pictures."""
        return frozenset(item.key for items in self._chosen.values() for item in items)

    @cached_property
    def _chosen(self) -> dict[str, list[Item]]:
        return {split: self.items(split) for split in self.splits}

    @classmethod
    def content(cls, item: Item) -> Content:
        """Return what is known of a picture."""
        record: Record = item.annotation
        return Content((record.height, record.width), record.annotations, meta=record.meta)

    def file(self, item: Item) -> str:
        """Return the name of a picture."""
        return item.key

    def classes(self) -> list[str]:
        """Return the names of the classes."""
        return self.data.classes()

    def category_ids(self) -> list[int]:
        """Return the ids of the classes."""
        return self.data.category_ids()


def copied(stored: Record, record: Record) -> Record:
    """Return what is stored of a record under its name and number."""
    complete = stored.complete and record.complete
    return replace(stored, image_id=record.image_id, file=record.file, complete=complete)


def copy_of(record: Record, copies: Mapping[str, Copies]) -> Path | None:
    """Return the copy that a record is of, given those of each split; None where it is of none."""
    from segsweep.data.store import stored_picture

    if max(record.height, record.width) != copies["train"].longest:  # as of what is checked
        return None
    places = (
        part.converted / stored_picture(record.file)
        for part in copies.values()
        if record.file in part.files
    )
    return next(filter(Path.is_file, places), None)

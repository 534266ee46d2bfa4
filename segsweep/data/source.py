"""Data sets in their publishers' own layouts, converted once to records.

    items of a split --content, in processes--> annotations or a label map --> cache --> records

A set is one file: its facts, its classes, where its pictures and annotations lie (`items`), and
what one of them holds (`content`). All the rest is here and in `conversion.py`. Nothing of this
imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import neutral, outside, plain
from segsweep.base.errors import UserError
from segsweep.base.fields import default_of
from segsweep.data.base import SPLITS, DataSet, Record
from segsweep.data.items import MANIFEST, PALETTES, Content, Facts, Item
from segsweep.data.splits import HELD, WITH_HELD

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.findings import Finding

Select = Enum("Select", {"val": "val", "held": "held"})


@dataclass
class Source(DataSet):
    """A set in its publisher's layout below `root`.

    `longest`: pictures are stored with a longest side of at most this many pixels (0: as they are).
    `split`: a split file (split, tab, key on each line) in place of the published or ruled one; its
    content, not its place, is part of what a run is. It may name a held list as well.
    `select`: the best epoch is chosen on val, which results are of, or on that held list.
    """

    root: str | None = outside(None)
    cache: str | None = outside(None)  # default: $SEGSWEEP_CACHE, else ~/.cache/segsweep
    split: str | None = outside(None)
    longest: int = 0
    select: Select = neutral(Select["val"])

    facts: ClassVar[Facts]
    not_hashed: ClassVar[str] = "pixels of pictures: only their names and sizes are hashed"
    version: ClassVar[int] = 1  # raise it when `items` or `content` give something else

    def items(self) -> dict[str, list[Item]]:
        """Return all pictures by split, as published or by the set's rule.

        Pictures of further splits (a test set, the rest of a pool) can be named by split files.
        Raises UserError naming what is missing below `root`, and how to get it.
        """
        raise NotImplementedError

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read what one item holds; called in other processes, hence a function of the item only.

        Raises UserError naming the file and what is wrong with it.
        """
        raise NotImplementedError

    def expected(self) -> int | None:
        """Return how many images its publisher says are in train, None of a split of one's own."""
        return None if self.split else self.facts.images.get("train")

    def rule(self) -> str:
        """Return in words how pictures come into train and val without a split file."""
        return "published"

    def records(self, split: str) -> list[Record]:
        """Return the pictures of a split; ids count from 1 within it. Converts at first."""
        return self._records[split]

    def survey(self, split: str) -> tuple[list[Record], list[Finding]]:
        """Return the pictures of a split, and what is wrong with the set."""
        records, findings = super().survey(split)
        return records, findings or self._findings()

    def _findings(self) -> list[Finding]:
        from segsweep.data.findings import finding

        palettes = self._folder / PALETTES
        if not palettes.is_file():
            return []
        return [finding("labels-palettes", f"data={self.name}", details=[palettes.read_text()])]

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a record, from the cache if they are stored there. (H, W, 3) uint8

        Raises UserError for a file that is missing, broken or of another size.
        """
        from segsweep.data.formats.images import read_image

        return read_image(self.picture(record), (record.height, record.width), self.levels)

    def picture(self, record: Record) -> Path:
        """Return the file of a record's picture, that in the cache if it is stored there."""
        stored = self._folder / "images" / record.file
        return stored if self.longest and stored.is_file() else self.folder / record.file

    def pictures(self) -> list[Path]:
        """Return the files of all pictures below `root`."""
        return [
            self.folder / record.file for split in self._used for record in self._records[split]
        ]

    def prepared(self) -> bool:
        """Tell whether the set is converted."""
        return self.converted.is_dir()

    def label_map(self, record: Record) -> np.ndarray:
        """Return the label map of a semantic record. (H, W) uint8: class, BACKGROUND or IGNORE"""
        from segsweep.data.store import read_labels

        return read_labels(self._folder / "labels" / str(record.labels))

    def split_facts(self) -> dict[str, Any]:
        """Return the rule in words, the hash of the manifest and the number of pictures."""
        from segsweep.data import splits

        keys = splits.read(self._folder / MANIFEST, WITH_HELD)
        rule = f"file {Path(self.split).name}" if self.split else self.rule()
        counts = {split: len(keys[split]) for split in self._used}
        return {"rule": rule, "hash": splits.digest(splits.text(keys)), **counts}

    def fingerprint(self) -> str:
        """Return a hash of classes, split, annotations, and names and sizes of the pictures."""
        return self._keys[0]

    @cached_property
    def folder(self) -> Path:
        """The folder below which the set lies. Raises UserError if there is none."""
        if self.root is None:
            raise UserError(f"data.root: give the folder of {self.facts.title}. {self._obtain}")
        folder = Path(self.root).expanduser()
        if not folder.is_dir():
            raise UserError(f"data.root={self.root}: there is no such folder. {self._obtain}")
        return folder

    def place(self, *places: str) -> Path:
        """Return the first of several places below `root` that exists.

        Raises UserError naming them, and how to get the set.
        """
        for place in places:
            if (self.folder / place).exists():
                return self.folder / place
        raise UserError(f"data.root={self.root}: has no {' or '.join(places)}. {self._obtain}")

    @property
    def _obtain(self) -> str:
        return f"How to obtain it: {self.facts.obtain}"

    @property
    def chosen_on(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The part by which the best epoch of a run is chosen."""
        return self.select.name

    @property
    def _used(self) -> Sequence[str]:
        """The parts that a run is about: train, val, and the list by which it chooses an epoch."""
        return WITH_HELD if self.select.name == HELD else SPLITS

    @cached_property
    def _chosen(self) -> dict[str, list[Item]]:
        """The pictures of the parts in the order of their keys, all of which exist."""
        from segsweep.data import splits

        parts = self.items()
        pool: dict[str, Item] = {}
        for item in (item for items in parts.values() for item in items):
            if pool.setdefault(item.key, item) is not item:
                raise UserError(f"data.root={self.root}: {item.key} is named more than once")
        if self.split is not None:
            parts = splits.chosen(Path(self.split), pool)
        if self.select.name == HELD and not parts.get(HELD):
            raise UserError(
                f"data.select={HELD}: {self.split or self.root} has no third list of "
                f"data={self.name} to choose the best epoch by; say data.select=val, or name "
                f"train, val and {HELD} in a file: data.split=FILE"
            )
        for split in self._used:
            if not parts[split]:
                raise UserError(
                    f"data.root={self.root}: has no pictures of {split}. {self._obtain}"
                )
        chosen = {split: sorted(parts[split], key=lambda item: item.key) for split in self._used}
        missing = [i.key for items in chosen.values() for i in items if not i.image.is_file()]
        if missing:
            names = splits.few(missing)
            raise UserError(f"data.root={self.root}: pictures are missing: {names}. {self._obtain}")
        return chosen

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        """What beside the files decides on the outcome of a conversion."""
        shared = {f.name for f in fields(DataSet)}
        options = [
            f
            for f in fields(self)
            if f.name not in shared and not f.metadata.get("outside")
            if not (f.metadata.get("neutral") and getattr(self, f.name) == default_of(f))
        ]
        return {
            # names of runs follow from this: as it was before sets had a folder of their own
            "set": f"{type(self).__module__}.{type(self).__qualname__}".replace(".sets.", "."),
            "version": self.version,
            "classes": self.classes(),
            "options": {f.name: plain(getattr(self, f.name)) for f in options},
        }

    @cached_property
    def _cache(self) -> Path:
        from segsweep.data.store import cache_folder

        return cache_folder(self.cache)

    @cached_property
    def _keys(self) -> list[str]:
        """The hash of the content, and that of the content and where it lies below `root`."""
        from segsweep.data.store import content_hash, layout_hash, remembered

        def hashed() -> list[str]:
            key = content_hash(self._recipe, self._chosen)
            files = [self.file(item) for items in self._chosen.values() for item in items]
            return [key, layout_hash(key, files)]

        split = Path(self.split) if self.split else None
        return remembered(self._cache, self.name, self.folder, split, self._recipe, hashed)

    @property
    def converted(self) -> Path:
        """The place of the converted set, which may be yet to come."""
        return self._cache / f"{self.name}-{self._keys[1]}"

    def file(self, item: Item) -> str:
        """Return the path of a picture below `root`, as records have it."""
        inside = item.image.is_relative_to(self.folder)
        return (item.image.relative_to(self.folder) if inside else item.image.resolve()).as_posix()

    @cached_property
    def _folder(self) -> Path:
        """The folder of the converted set, which is there."""
        from segsweep.data.conversion import convert
        from segsweep.data.store import ensure

        ensure(self.converted, lambda new: convert(self, self._chosen, new))
        return self.converted

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        from segsweep.data.findings import accept
        from segsweep.data.store import read_records

        accept(self._findings())
        return {split: read_records(self._folder / f"{split}.json") for split in self._used}

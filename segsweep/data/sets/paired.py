"""Semantic sets that are folders of pictures and masks.

Those of one thing against background are also read from the archives that the Conv-LoRA study
packed of them (Zhong 2024, arXiv:2401.17868): train.csv, val.csv and test.csv with columns image
and label. `val` is everywhere the part that papers report on, as the facts of each set say. The
best epoch of a run is chosen on it too, unless `data.select=held` has it chosen on the part "held",
as that study does on val.csv: published for some sets, else named by a file, `data.split`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND
from segsweep.data.items import Content, Item
from segsweep.data.source import Source
from segsweep.data.splits import Rule

GREY = "pixels of masks neither black nor white, told apart at half of white"


@dataclass
class Paired(Source):
    """A set of pictures and masks that belong together by their names, each part in two folders."""

    task: ClassVar[str] = "semantic"
    archive: ClassVar[str] = ""  # the folder that it unpacks to
    parts: ClassVar[dict[str, str]]  # what the authors call train, val and held, which may lack
    folders: ClassVar[tuple[str, str]]  # of pictures and masks below it; {} is the part's name
    matching: ClassVar[dict[str, Any]] = {}  # of their names: the options of `pairs`

    def items(self) -> dict[str, list[Item]]:
        """Return all pictures by part. Raises UserError for what is missing below `root`."""
        return self.published()

    def published(self) -> dict[str, list[Item]]:
        """Return the parts as their authors publish them."""
        base, (pictures, masks) = self.base(self.archive), self.folders
        return {
            part: self.pairs(base, pictures.format(name), masks=masks.format(name), **self.matching)
            for part, name in self.parts.items()
            if part != "held" or (base / Path(pictures.format(name)).parts[0]).is_dir()
        }

    def base(self, *archives: str) -> Path:
        """Return `root`, or the first of these folders in it: what an archive unpacks to."""
        return next((p for name in archives if (p := self.folder / name).is_dir()), self.folder)

    def pairs(
        self,
        base: Path,
        *images: str,
        masks: str,
        suffix: str = "",
        without: str | None = None,
        skip: bool = False,
    ) -> list[Item]:
        """Return the pairs of folders below `base`; the rest is told at `by_stem` and `pair`.

        Raises UserError for missing folders, with how to get the set.
        """
        from segsweep.data.formats.pairs import by_stem, pair

        for name in (*images, masks):
            if not (base / name).is_dir():
                raise UserError(f"{base}: has no folder {name}. {self._obtain}")
        pictures = by_stem(*(base / name for name in images), without=without)
        return pair(base, pictures, by_stem(base / masks, suffix=suffix), skip=skip)


@dataclass
class NumberedMasks(Paired):
    """A set of masks that hold the numbers of classes, from 1 on; `zero` is what 0 means."""

    names: ClassVar[list[str]]
    zero: ClassVar[int] = BACKGROUND

    def classes(self) -> list[str]:
        """Return the classes, by their value in the masks less one."""
        return list(self.names)

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read a mask by its numbers."""
        from segsweep.data.formats.pairs import numbered

        places = {0: cls.zero} | {k + 1: k for k in range(len(cls.names))}
        return numbered(item.image, item.annotation, places)


@dataclass
class BinaryMasks(Paired):
    """A set of one class against background."""

    foreground: ClassVar[str]
    test: ClassVar[str] = "test"  # the list of a packed archive that the study reports on

    def classes(self) -> list[str]:
        """Return the one class."""
        return [self.foreground]

    def items(self) -> dict[str, list[Item]]:
        """Return all pictures by part. Raises UserError for what is missing below `root`."""
        return self._packed() if self._is_packed else self.published()

    def rule(self) -> str:
        """Return in words how pictures come into train and val."""
        return "lists of the packed archive" if self._is_packed else "published"

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read a mask, and count its pixels that are neither black nor white."""
        from segsweep.data.formats.pairs import binary, fitted

        labels, grey = binary(item.annotation)
        return fitted(item.image, item.annotation, labels, **{GREY: grey})

    @property
    def _is_packed(self) -> bool:
        return (self.folder / "train.csv").is_file()

    def _packed(self) -> dict[str, list[Item]]:
        """Return the lists of a packed archive: val is its test list, or val.csv without one."""
        from segsweep.data.formats.pairs import table

        names = ("train", "val", self.test)
        lists = {name: self.folder / f"{name}.csv" for name in names}
        parts = {name: table(path) for name, path in lists.items() if path.is_file()}
        if self.test in parts:
            parts["held"], parts["val"] = parts.pop("val", []), parts.pop(self.test)
        return parts


@dataclass
class Pooled(BinaryMasks):
    """A set of one class whose published split is not known here: a rule parts the pool."""

    division: ClassVar[Rule]

    def pool(self) -> list[Item]:
        """Return all pictures."""
        raise NotImplementedError

    def published(self) -> dict[str, list[Item]]:
        """Return the parts by the rule; "rest" of them is for split files only."""
        return self.division.split(self.pool())

    def rule(self) -> str:
        """Return in words how pictures come into train and val."""
        return super().rule() if self._is_packed else str(self.division)

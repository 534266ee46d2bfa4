"""Data sets in their publishers' own layouts, converted once to records.

    items of a split --content, in processes--> annotations or a label map --> cache --> records

A set is one file: its facts, its classes, where its pictures and annotations lie (`items`), and
what one of them holds (`content`). All the rest is here and in `conversion.py`. Nothing of this
imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.config import outside
from segsweep.data.base import Annotation, DataSet

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Facts:
    """What is known about a set, and how well: `unverified` names what is from memory only."""

    title: str
    licence: str
    citation: str
    obtain: str  # how to get it, and how it must lie below data.root
    images: dict[str, int]  # published number by split
    unverified: str = ""


@dataclass(frozen=True)
class Item:
    """One picture of a set before it is read.

    `key` names it within the set, also in split files ("ABOVE/12.jpg"); `image` is its file;
    `annotation` is whatever `content` needs beside it (a path, a parsed entry), and can be pickled;
    items of one `group` (a burst, a sequence) never stand on both sides of a split.
    """

    key: str
    image: Path
    annotation: Any = None
    group: str = ""


@dataclass
class Content:
    """What one item holds, at the full size of its picture.

    Either `annotations`, or `labels`: (H, W) uint8 of contiguous classes, BACKGROUND or IGNORE.
    """

    size: tuple[int, int]  # height, width of the picture
    annotations: list[Annotation] = field(default_factory=list)
    labels: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Source(DataSet):
    """A set in its publisher's layout below `root`.

    `longest`: pictures are stored with a longest side of at most this many pixels (0: as they are).
    `split`: a split file (split, tab, key on each line) in place of the published or ruled one; its
    content, not its place, is part of what a run is.
    """

    root: str | None = outside(None)
    cache: str | None = outside(None)  # default: $SEGSWEEP_CACHE, else ~/.cache/segsweep
    split: str | None = outside(None)
    longest: int = 0

    facts: ClassVar[Facts]

    def items(self) -> dict[str, list[Item]]:
        """Return all pictures by split, as published or by the set's rule.

        Raises UserError naming what is missing below `root`, and how to get it.
        """
        raise NotImplementedError

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read what one item holds; called in other processes, hence a function of the item only.

        Raises UserError naming the file and what is wrong with it.
        """
        raise NotImplementedError

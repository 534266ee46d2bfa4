"""What a set in its publisher's layout is made of: facts, items, and what one item holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.data.base import Annotation, Segmentation

if TYPE_CHECKING:
    import numpy as np

PALETTES = "palettes.txt"  # of a converted set whose masks differ in their colours: how
MANIFEST = "split.tsv"  # of a converted set: split, tab, key on each line
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Facts:
    """What is known about a set, and how well: `unverified` names what is from memory only."""

    title: str
    licence: str
    citation: str
    obtain: str  # how to get it, and how it must lie below data.root
    images: dict[str, int]  # published number by split, or of "all"
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
    `void` is an RLE of pixels that were not labelled (see `Record`). An empty box and an area of
    0 are taken from the mask. `counts` of what was mended or left out are summed and told.
    `colours` are those by which a mask of class numbers shows its values: the same in a whole set.
    """

    size: tuple[int, int]  # height, width of the picture
    annotations: list[Annotation] = field(default_factory=list)
    labels: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    void: Segmentation | None = None
    counts: dict[str, int] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)


def pictures(folder: Path) -> list[Path]:
    """Return the picture files directly in a folder, sorted by name; suffixes in any case."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )

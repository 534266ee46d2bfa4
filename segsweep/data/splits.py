"""Which pictures train and which validate, as manifests: lines of split, tab, key.

A set without a published split has a rule that anybody can repeat, and every split has a hash:
two results are comparable only where the hashes are equal.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base import files
from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS

if TYPE_CHECKING:
    from segsweep.data.items import Item

HELD = "held"  # a third part: neither trained nor reported on, to choose the best epoch by
WITH_HELD = (*SPLITS, HELD)


@dataclass(frozen=True)
class Rule:
    """A split of a pool that needs no list: groups in the order of a hash of their names.

    Groups are sorted by sha256("name/seed/group"). Whole groups go to val until it has its number
    of pictures, the following ones to train until it has its own (None: all the rest). What the
    last group of a split has too much is left out: no group stands on both sides, and the numbers
    are exact.
    """

    name: str
    val: int
    train: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        train = "the rest" if self.train is None else self.train
        order = f"sha256('{self.name}/{self.seed}/<group>')"
        return f"groups in the order of {order}: first {self.val} to val, then {train} to train"

    def split(self, pool: Iterable[Item]) -> dict[str, list[Item]]:
        """Return the items by split; "rest" holds those of neither, which split files may name.

        Raises UserError if the pool is too small.
        """
        order = sorted((self._place(item.group or item.key), item.key, item) for item in pool)
        groups = [[item for *_, item in several] for _, several in groupby(order, lambda x: x[0])]
        parts: dict[str, list[Item]] = {"val": [], "train": [], "rest": []}
        for split, number in (("val", self.val), ("train", self.train)):
            room = len(order) if number is None else number
            while groups and len(parts[split]) < room:
                parts[split] += groups.pop(0)
            parts["rest"] += parts[split][room:]
            del parts[split][room:]
            if not parts[split] or len(parts[split]) < (number or 0):
                raise UserError(
                    f"{self.name}: {len(order)} pictures in groups are too few for {self}"
                )
        parts["rest"] += [item for group in groups for item in group]
        return parts

    def _place(self, group: str) -> str:
        return sha256(f"{self.name}/{self.seed}/{group}".encode()).hexdigest()


@dataclass(frozen=True)
class Share:
    """A part of a set for val: whole photographs, in the order of a hash of their names.

    One goes to val if that brings val nearer to its share, the first in any case.
    """

    val: float

    def __str__(self) -> str:
        return f"{self.val:g} to val: photographs (by their names) in the order of sha256(name)"

    @property
    def identity(self) -> str:
        """What a run of such a split is known by."""
        return f"share {self.val:g}"

    def keys(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the names of each split. Raises UserError where one would be empty."""
        groups: dict[str, list[str]] = {}
        for name, group in photographs(sorted(names)).items():
            groups.setdefault(group, []).append(name)
        total = sum(map(len, groups.values()))
        parts: dict[str, list[str]] = {"train": [], "val": []}
        for group in sorted(groups, key=lambda group: sha256(group.encode()).hexdigest()):
            size, room = len(groups[group]), self.val * total - len(parts["val"])
            nearer = size < 2 * room or not parts["val"]
            parts["val" if nearer and size < total - len(parts["val"]) else "train"] += groups[
                group
            ]
        for split in SPLITS:
            if not parts[split]:
                raise UserError(
                    f"data.split={self.val:g}: {total} pictures of {len(groups)} photographs leave "
                    f"nothing for {split}"
                )
        return parts


@dataclass(frozen=True)
class Manifest:
    """A split that a file tells."""

    path: Path

    def __str__(self) -> str:
        return f"file {self.path.name}"

    @property
    def identity(self) -> str:
        """What a run of such a split is known by."""
        return digest(text(read(self.path)))

    def keys(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the names of each split. Raises UserError for those that are not in the set."""
        keys, known = read(self.path), set(names)
        refuse_unknown(self.path, keys, known)
        return keys


def division(word: str) -> Share | Manifest:
    """Return how `data.split=` parts a set: a share of val (0.2), or a file of split, tab, key.

    Raises UserError for a share that is none.
    """
    try:
        share = float(word)
    except ValueError:
        return Manifest(Path(word).expanduser())
    if not 0 < share < 1:
        raise UserError(f"data.split={word}: must lie between 0 and 1, as 0.2, or be a file")
    return Share(share)


COPY = re.compile(r"(_(jpe?g|png|bmp|tiff?))?\.rf\.\w{8,}$", re.IGNORECASE)  # of Roboflow
PIECE = re.compile(  # of what says that it is one
    r"[_-]+(tile|crop|patch|part|scaled|aug|copy|rot|flip)[a-z]*([_-]*\d+)*$", re.IGNORECASE
)
CROP = re.compile(rf"{PIECE.pattern}|([_-]+[xy]?\d+){{2,}}$", re.IGNORECASE)
NUMBER = re.compile(r"[_-]+\d+$")


def photographs(names: Sequence[str]) -> dict[str, str]:
    """Return for each picture the photograph that its name says it was cut or copied from.

    "a_tile_0_512.png", "a_scaled_1.jpg" and "a_jpg.rf.0f3c.jpg" are of "a". So are "a_1" and "a_2",
    unless such numbers merely count the pictures: then many of them would be of one photograph.
    """
    stems = {name: COPY.sub("", stem(name)) for name in names}
    for pattern, most in ((CROP, 1 / 2), (NUMBER, 1 / 4)):
        shorter = {name: pattern.sub("", stem) for name, stem in stems.items()}
        if max(Counter(shorter.values()).values(), default=0) <= most * len(names):
            stems = shorter
    return stems


def stem(name: str) -> str:
    """Return a name without its suffix."""
    return name.rpartition(".")[0] or name


def text(splits: Mapping[str, Iterable[str]]) -> str:
    """Return the manifest of keys by split: sorted, one line each."""
    return "".join(f"{split}\t{key}\n" for split in sorted(splits) for key in sorted(splits[split]))


def digest(manifest: str) -> str:
    """Return the hash by which a split is known."""
    return sha256(manifest.encode()).hexdigest()[:12]


def read(path: Path, parts: Sequence[str] = SPLITS) -> dict[str, list[str]]:
    """Read a manifest: keys by split. Empty lines and those that begin with # say nothing.

    Of the `parts` that it may name train and val must have pictures; others are there if they have.

    Raises UserError with the line of a fault, for keys twice and for a split without pictures.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.split={path}: cannot be read ({error})") from error
    keys_by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        split, tab, key = line.rstrip().partition("\t")
        if not tab or split not in parts:
            form = f"a line is {' or '.join(parts)}, a tab, a key"
            raise UserError(f"data.split={path}: line {number} is {line!r}; {form}")
        if key in first:
            raise UserError(
                f"data.split={path}: {key!r} is on lines {first[key]} and {number}; "
                "a picture is on one side only, once"
            )
        first[key] = number
        keys_by_split.setdefault(split, []).append(key)
    for split, keys in keys_by_split.items():
        if not keys:
            raise UserError(f"data.split={path}: has no line of {split}")
    return keys_by_split


def chosen(path: Path, pool: Mapping[str, Item]) -> dict[str, list[Item]]:
    """Return the items that a split file names. `pool`: all pictures of the set by key.

    Raises UserError for unknown keys; warns when pictures of a group are on both sides.
    """
    keys = read(path, WITH_HELD)
    refuse_unknown(path, keys, pool)
    items = {split: [pool[key] for key in several] for split, several in keys.items()}
    train, val = ({item.group for item in items[split] if item.group} for split in SPLITS)
    if train & val:
        warnings.warn(
            f"data.split={path}: {few(sorted(train & val))} groups of pictures that belong "
            "together (bursts, sequences) are on both sides: results will be too good",
            stacklevel=2,
        )
    return items


def copies(train: Sequence[Path], val: Sequence[Path]) -> dict[Path, Path]:
    """Return the files of val whose bytes a file of train has as well, and which one.

    Sizes are compared first, then beginnings, and the whole of what is left: few files are read.
    Raises OSError for a file that cannot be read.
    """
    groups = [(train, val)]
    for tells in (_size, _beginning, files.sha256):
        groups = [pair for one, other in groups for pair in _alike(one, other, tells)]
    return {path: one[0] for one, other in groups for path in other}


def _alike(
    one: Sequence[Path], other: Sequence[Path], tells: Callable[[Path], Any]
) -> list[tuple[list[Path], list[Path]]]:
    """Return the files of both sides of which the same is told."""
    sides: list[dict[Any, list[Path]]] = []
    for paths in (one, other):
        sides.append({})
        for path in paths:
            sides[-1].setdefault(tells(path), []).append(path)
    first, second = sides
    return [(first[told], second[told]) for told in second if told in first]


def _size(path: Path) -> int:
    return path.stat().st_size


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def refuse_unknown(path: Path, keys: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    """Raise UserError for keys of a manifest that are not in the set."""
    unknown = [key for several in keys.values() for key in several if key not in known]
    if unknown:
        raise UserError(
            f"data.split={path}: {few(unknown)} of its keys {'are' if unknown[1:] else 'is'} not "
            f"in the set{like(unknown[0], list(known))}"
        )


def few(words: Sequence[str]) -> str:
    """Return how many words there are, and the first of them."""
    return f"{len(words)} ({', '.join(words[:3])}{', ...' if len(words) > 3 else ''})"


def like(key: str, keys: Sequence[str]) -> str:
    """Return what an unknown key may have meant."""
    near = get_close_matches(key, keys, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; its keys are like {min(keys)!r}"

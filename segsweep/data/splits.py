"""Which pictures train and which validate, as manifests: lines of split, tab, key.

A set without a published split has a rule that anybody can repeat, and every split has a hash:
two results are comparable only where the hashes are equal.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS

if TYPE_CHECKING:
    from segsweep.data.items import Item


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


def text(splits: Mapping[str, Iterable[str]]) -> str:
    """Return the manifest of keys by split: sorted, one line each."""
    return "".join(f"{split}\t{key}\n" for split in SPLITS for key in sorted(splits[split]))


def digest(manifest: str) -> str:
    """Return the hash by which a split is known."""
    return sha256(manifest.encode()).hexdigest()[:12]


def read(path: Path) -> dict[str, list[str]]:
    """Read a manifest: keys by split. Empty lines and those that begin with # say nothing.

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
        if not tab or split not in SPLITS:
            form = f"a line is {' or '.join(SPLITS)}, a tab, a key"
            raise UserError(f"data.split={path}: line {number} is {line!r}; {form}")
        if key in first:
            raise UserError(
                f"data.split={path}: {key!r} is on lines {first[key]} and {number}; "
                "a picture is on one side only, once"
            )
        first[key] = number
        keys_by_split[split].append(key)
    for split, keys in keys_by_split.items():
        if not keys:
            raise UserError(f"data.split={path}: has no line of {split}")
    return keys_by_split


def chosen(path: Path, pool: Mapping[str, Item]) -> dict[str, list[Item]]:
    """Return the items that a split file names. `pool`: all pictures of the set by key.

    Raises UserError for unknown keys; warns when pictures of a group are on both sides.
    """
    keys = read(path)
    unknown = [key for split in SPLITS for key in keys[split] if key not in pool]
    if unknown:
        raise UserError(
            f"data.split={path}: {few(unknown)} of its keys {'are' if unknown[1:] else 'is'} not "
            f"in the set{like(unknown[0], list(pool))}"
        )
    items = {split: [pool[key] for key in keys[split]] for split in SPLITS}
    train, val = ({item.group for item in items[split] if item.group} for split in SPLITS)
    if train & val:
        warnings.warn(
            f"data.split={path}: {few(sorted(train & val))} groups of pictures that belong "
            "together (bursts, sequences) are on both sides: results will be too good",
            stacklevel=2,
        )
    return items


def few(words: Sequence[str]) -> str:
    """Return how many words there are, and the first of them."""
    return f"{len(words)} ({', '.join(words[:3])}{', ...' if len(words) > 3 else ''})"


def like(key: str, keys: Sequence[str]) -> str:
    """Return what an unknown key may have meant."""
    near = get_close_matches(key, keys, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; its keys are like {min(keys)!r}"

"""What a look at a folder tells: its files, the heads of JSON files, the splits of its names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from segsweep.data.items import SUFFIXES

HEAD = 1 << 16  # bytes of a JSON file that tell what it is
FEW = 20  # JSON files in a folder: each is looked at; of more only the first
PICTURES = (*SUFFIXES, ".webp")
WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Tree:
    """The files below a folder, by relative path; hidden ones are left out."""

    root: Path

    @cached_property
    def files(self) -> list[str]:
        """All paths in order, with forward slashes."""
        paths: list[str] = []
        for where, folders, names in os.walk(self.root, followlinks=True):
            folders[:] = [name for name in folders if name[0] != "."]
            place = Path(where).relative_to(self.root)
            paths += [(place / name).as_posix() for name in names if name[0] != "."]
        return sorted(paths)

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files with one of some suffixes, in any case."""
        return [path for path in self.files if path.lower().endswith(suffixes)]

    @cached_property
    def places(self) -> set[str]:
        """All files, and all folders that hold one."""
        above = {place.as_posix() for path in self.files for place in PurePosixPath(path).parents}
        return above.union(self.files)

    @cached_property
    def jsons(self) -> dict[str, frozenset[str]]:
        """The JSON files and the keys in their heads; many in a folder are all like the first."""
        folders: dict[str, list[str]] = {}
        for path in self.ending(".json"):
            folders.setdefault(path.rpartition("/")[0], []).append(path)
        heads: dict[str, frozenset[str]] = {}
        for paths in folders.values():
            alike = keys(self.root / paths[0]) if len(paths) > FEW else None
            heads |= {p: keys(self.root / p) if alike is None else alike for p in paths}
        return heads


def keys(path: Path) -> frozenset[str]:
    """Return the keys that the head of a JSON object names, at any depth; none of other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return frozenset()
    return frozenset(re.findall(r'"([^"\\]{1,60})"\s*:', head)) if head[:1] == "{" else frozenset()


def split_of(path: str) -> str | None:
    """Return the split that a path names: by its file, else by the nearest of its folders.

    "valid/_annotations.coco.json" and "instances_val2017.json" are of val; "trainval" names none.
    """
    place = PurePosixPath(path)
    for part in (place.stem, *reversed(place.parts[:-1])):
        splits = {WORDS[word] for word in re.findall("[a-z]+", part.lower()) if word in WORDS}
        if len(splits) == 1:
            return splits.pop()
    return None


def by_split(paths: Iterable[str], root: Path) -> dict[str, list[Path]]:
    """Return paths below a folder by the split that they name.

    Those that name none are of train, where no other is; else they are left out.
    """
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for path in paths:
        parts[split_of(path) or ""].append(root / path)
    unnamed = parts.pop("")
    parts["train"] = parts["train"] or unnamed
    return {split: several for split, several in parts.items() if several}

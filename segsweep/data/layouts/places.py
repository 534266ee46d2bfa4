"""Where the pictures of an annotation file lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.data.formats.listing import Pictures, canonical
from segsweep.data.layouts.tree import split_of

if TYPE_CHECKING:
    from segsweep.data.findings import Findings

IMAGES = "images/"


def sized(pictures: Pictures, name: str, findings: Findings) -> tuple[str, tuple[int, int]] | None:
    """Return path, height and width of a picture as it is shown; a finding if there is none."""
    path = pictures.find(name)
    if path is None and (path := pictures.respelled(name)):
        findings.add("picture-name", name, f"{name} is {path}")
    if path is None:
        findings.add("picture-missing", name, f"{name} is not in {pictures.folder}")
        return None
    try:
        return path, pictures.sizes(path)[1]
    except UserError as error:
        findings.add("picture-broken", name, str(error))
        return None


def of_split(pictures: Pictures, split: str, files: Sequence[Path]) -> Pictures:
    """Return pictures as the annotation files of a split may call them.

    Names begin at their folder or root, or else at that of the file or one that is called like the
    split or the file ("images/val", "val2017", "images/default" of instances_default.json), or
    else at images/.
    """
    folder = pictures.folder
    words = {path.stem.rpartition("_")[2].lower() for path in files[:1]} - {""}
    own = [path.parent.relative_to(folder) for path in files[:1] if path.is_relative_to(folder)]
    named: dict[str, str] = {}
    for path in sorted(set(pictures.paths.values())):
        for name in _below(path, own, split, words):
            named.setdefault(canonical(name), path)
    called = Pictures(folder, pictures.root)
    inside = {name.removeprefix(IMAGES): path for name, path in pictures.paths.items()}
    called.paths = {**inside, **named, **pictures.paths}
    return called


def _below(path: str, own: Sequence[Path], split: str, words: set[str]) -> Iterator[str]:
    """Yield what a path is called from folders above it that tell its split or hold its file."""
    place = PurePosixPath(path)
    for above in list(place.parents)[:-1]:
        tells = split_of(f"{above.name}/_") == split or above.name.lower() in words
        if tells or Path(above) in own:
            yield place.relative_to(above).as_posix()

"""Any data set in COCO form: `data=coco data.root=FOLDER`.

    FOLDER/train.json, FOLDER/val.json     annotations: polygons or RLE, any category ids
    FOLDER/images/...                      pictures, or below FOLDER itself

COCO's own layout (annotations/instances_train2017.json, train2017/*.jpg) is found as well; other
places are named by `data.train=`, `data.val=` and `data.images=`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.config import outside
from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, DataSet, Record

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.findings import Finding
    from segsweep.data.formats.coco_file import CocoFile

PLACES = (
    "{split}.json",
    "annotations/{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
)


@dataclass
class Coco(DataSet):
    """A data set of COCO files. Its classes are the categories of the training file, by rising id.

    Paths are relative to `root` if that is given. They are no part of a run's identity: the content
    of the annotation files is.
    """

    root: str | None = outside(None)
    images: str | None = outside(None)  # folder of the pictures
    train: str | None = outside(None)  # annotation file
    val: str | None = outside(None)

    def classes(self) -> list[str]:
        """Return the category names of the training file."""
        return list(self._accepted["train"].categories.values())

    def category_ids(self) -> list[int]:
        """Return the category ids of the training file."""
        return list(self._accepted["train"].categories)

    def records(self, split: str) -> list[Record]:
        """Return the images of a split. Raises UserError for any fault of file, ids or pictures."""
        return self._accepted[split].records

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a record. (H, W, 3) uint8 RGB"""
        from segsweep.data.formats.images import read_image

        return read_image(self.picture(record), (record.height, record.width), self.levels)

    def picture(self, record: Record) -> Path:
        """Return the file of a record's picture."""
        return self._folder / record.file

    def pictures(self) -> list[Path]:
        """Return the files of all pictures that are there."""
        return [self.picture(record) for file in self.files.values() for record in file.records]

    def fingerprint(self) -> str:
        """Return a hash of both annotation files."""
        digests = [digest(path, path.stat().st_mtime_ns) for path in self._paths.values()]
        return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]

    @cached_property
    def _folder(self) -> Path:
        """The folder of the pictures."""
        root = Path(self.root or "")
        inside = root / "images"
        folder = root / self.images if self.images else inside if inside.is_dir() else root
        if not folder.is_dir():
            raise UserError(f"data.images={folder}: there is no such folder")
        return folder

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """The annotation file of each split."""
        if self.root is None and None in (self.train, self.val, self.images):
            raise UserError(
                "data.root: give the folder with train.json, val.json and images, "
                "as in data.root=my/folder (or all of data.train, data.val, data.images)"
            )
        root = Path(self.root or "")
        if not root.is_dir():
            raise UserError(f"data.root={root}: there is no such folder")
        return {split: self._path(root, split) for split in SPLITS}

    def _path(self, root: Path, split: str) -> Path:
        named = getattr(self, split)
        places = [named] if named else [place.format(split=split) for place in PLACES]
        for place in places:
            if (root / place).is_file():
                return root / place
        raise UserError(
            f"data.{split}: no annotation file in {root} (looked for {', '.join(places)}); "
            f"name it with data.{split}=path/to/file.json"
        )

    def survey(self, split: str) -> tuple[list[Record], list[Finding]]:
        """Return what of a split can be used and what is wrong with it."""
        file = self.files[split]
        return file.records, file.listed()

    @cached_property
    def _accepted(self) -> dict[str, CocoFile]:
        """Both splits without fatal findings; told once of what was left out."""
        from segsweep.data.findings import accept

        accept([finding for file in self.files.values() for finding in file.listed()])
        return self.files

    @cached_property
    def files(self) -> dict[str, CocoFile]:
        """What can be used of both splits: contiguous categories, existing pictures."""
        from segsweep.data.formats.coco_file import survey
        from segsweep.data.formats.listing import Pictures

        pictures = Pictures(self._folder, Path(self.root) if self.root else None)
        files = {split: survey(path, pictures) for split, path in self._paths.items()}
        for file in files.values():
            number(file, files["train"].categories)
        return files


def number(file: CocoFile, classes: dict[Any, str]) -> None:
    """Make the categories of annotations contiguous, in the order of the training classes.

    What is no class of train is left out, and a fatal finding.
    """
    places, lost = matched(file, classes), set()
    for annotation in (a for record in file.records for a in record.annotations):
        if annotation.category in places:
            annotation.category = places[annotation.category]
            continue
        lost.add(id(annotation))
        name = f"{annotation.category} {file.categories.get(annotation.category)!r}"
        if classes:
            detail = f"annotation {annotation.id}: {name}"
            file.findings.add("category-other-split", annotation.id, detail)
    for record in file.records:
        record.annotations = [a for a in record.annotations if id(a) not in lost]
    file.by_entry = [None if id(a) in lost else a for a in file.by_entry]


def matched(file: CocoFile, classes: dict[Any, str]) -> dict[Any, int]:
    """Return the contiguous class of each category of a file: by number where the names agree.

    A file that gives the very names of train other numbers is matched by them. What is certainly
    another class (its name is none of train's, and its number is not or is not used) has no place.
    """
    places = {category: k for k, category in enumerate(classes)}
    used = Counter(a.category for record in file.records for a in record.annotations)
    names = {name: places[category] for category, name in classes.items()}
    shared = {}
    for category, name in file.categories.items():
        if name in names or (category in classes and used[category]):
            shared[category] = name
        elif not used[category]:
            file.findings.add("category-extra", category, f"{category} {name!r}")
    others = [f"{c} {name!r}" for c, name in shared.items() if classes.get(c) != name]
    if not others:
        return {category: places[category] for category in shared}
    by_name = len(shared) == len(names) and {*shared.values()} == {*names}
    declared = ", ".join(f"{category} {name!r}" for category, name in classes.items())
    detail = f"{', '.join(others)}, in train {declared}"
    file.findings.add("category-renumbered" if by_name else "category-conflict", detail=detail)
    return {c: names[name] for c, name in shared.items()} if by_name else places


@lru_cache(maxsize=64)
def digest(path: Path, modified: int) -> str:
    """Return the hash of a file's bytes; a sweep of many runs reads an unchanged file once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

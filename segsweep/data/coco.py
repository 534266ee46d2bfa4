"""Any data set in COCO form: `data=coco data.root=FOLDER`.

    FOLDER/train.json, FOLDER/val.json     annotations: polygons or RLE, any category ids
    FOLDER/images/...                      pictures, or below FOLDER itself

COCO's own layout (annotations/instances_train2017.json, train2017/*.jpg) is found as well; other
places are named by `data.train=`, `data.val=` and `data.images=`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.config import outside
from segsweep.data.base import SPLITS, DataSet, Record
from segsweep.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.coco_file import CocoFile

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
        return list(self._file["train"].categories.values())

    def category_ids(self) -> list[int]:
        """Return the category ids of the training file."""
        return list(self._file["train"].categories)

    def records(self, split: str) -> list[Record]:
        """Return the images of a split. Raises UserError for any fault of file, ids or pictures."""
        return self._file[split].records

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a record. (H, W, 3) uint8 RGB"""
        from segsweep.data.images import read_image

        return read_image(self._folder / record.file, (record.height, record.width))

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

    @cached_property
    def _file(self) -> dict[str, CocoFile]:
        """Both splits, checked, with contiguous categories and paths of existing pictures."""
        from segsweep.data.coco_file import read
        from segsweep.data.images import listing

        files = {split: read(path) for split, path in self._paths.items()}
        known, val = files["train"].categories, files["val"].categories
        if not val.items() <= known.items():
            unknown = dict(val.items() - known.items())
            raise UserError(
                f"{files['val'].path}: categories {unknown} are not in {known} of train"
            )
        number = {category: k for k, category in enumerate(known)}
        pictures = listing(self._folder)
        for file in files.values():
            locate(file, pictures, self._folder)
            for annotation in (a for record in file.records for a in record.annotations):
                annotation.category = number[annotation.category]
        return files


def locate(file: CocoFile, pictures: dict[str, str], folder: Path) -> None:
    """Replace file names by paths that exist. Raises UserError with count and first of the lost."""
    found = [pictures.get(record.file.replace("\\", "/")) for record in file.records]
    lost = [r.file for r, path in zip(file.records, found, strict=True) if path is None]
    if lost:
        first = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise UserError(
            f"{file.path}: {len(lost)} of {len(found)} images are not in {folder}: {first}; "
            "data.images names their folder"
        )
    for record, path in zip(file.records, found, strict=True):
        record.file = path or ""


@lru_cache(maxsize=64)
def digest(path: Path, modified: int) -> str:
    """Return the hash of a file's bytes; a sweep of many runs reads an unchanged file once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

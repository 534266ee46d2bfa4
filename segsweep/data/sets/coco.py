"""Your own pictures with instances: `data=coco data.root=FOLDER`.

    FOLDER/train.json, FOLDER/val.json     annotations: polygons or RLE, any category ids
    FOLDER/images/...                      pictures, or below FOLDER itself

Folders of other programs are found as well (segsweep/data/layouts: COCO's own archives, Roboflow,
CVAT, Label Studio, YOLO, VIA, LabelMe, folders of masks) and read into the same form. Other places
are named by `data.train=`, `data.val=`, `data.test=` and `data.images=`; `data.split=0.2` parts a
set that has no val.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import neutral, outside
from segsweep.base.errors import UserError
from segsweep.data import splits
from segsweep.data.base import SPLITS, DataSet, Record
from segsweep.data.findings import Finding, accept, finding
from segsweep.data.items import Item
from segsweep.data.splits import division

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.copies import Copies
    from segsweep.data.formats.coco_file import CocoFile
    from segsweep.data.layouts.base import Layout

PARTS = (*SPLITS, "test")


@dataclass
class Coco(DataSet):
    """A data set of COCO files, or of a folder in another format that is read as if it were.

    Its classes are the categories of the training file, by rising id. Paths are relative to `root`
    if that is given. They are no part of a run's identity: the content of the annotations is.
    `longest`: larger pictures are used as copies with this longest side (0: as they are).
    """

    not_hashed: ClassVar[str] = "pictures: only the annotation files, which name them, are hashed"

    root: str | None = outside(None)
    images: str | None = outside(None)  # folder of the pictures
    train: str | None = outside(None)  # annotation file
    val: str | None = outside(None)
    test: str | None = outside(None)  # is checked, never trained on
    layout: str | None = outside(None)  # a file of segsweep/data/layouts; default: what is found
    split: str | None = outside(None)  # of a set without val: its share of pictures, or a manifest
    longest: int = neutral(0)
    cache: str | None = outside(None)  # of copies; default: $SEGSWEEP_CACHE, else ~/.cache/segsweep

    def __post_init__(self) -> None:
        """Refuse a split that could only fail later."""
        super().__post_init__()
        if self.split is not None:
            division(self.split)

    def classes(self) -> list[str]:
        """Return the category names of the training file."""
        return list(self._accepted["train"].categories.values())

    def category_ids(self) -> list[int]:
        """Return the category ids of the training file."""
        return list(self._accepted["train"].categories)

    def records(self, split: str) -> list[Record]:
        """Return the images of a split. Raises UserError for any fault of file, ids or pictures."""
        return self._copies[split].records[split] if self.longest else self.originals(split)

    def originals(self, split: str) -> list[Record]:
        """Return the images of a split as its files have them."""
        return (self._accepted if split in SPLITS else self._accepted_test)[split].records

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a record. (H, W, 3) uint8 RGB"""
        from segsweep.data.formats.images import read_image

        return read_image(self.picture(record), (record.height, record.width), self.levels)

    def picture(self, record: Record) -> Path:
        """Return the file of a record's picture, that of its copy if the record is of one."""
        from segsweep.data.copies import copy_of

        copy = copy_of(record, self._copies) if self.longest else None
        return copy or self._original(record)

    def _original(self, record: Record) -> Path:
        return self._folder / record.file

    def prepared(self) -> bool:
        """Tell whether the copies are made, if any are wanted."""
        return not self.longest or self._copies["train"].converted.is_dir()

    def pictures(self) -> list[Path]:
        """Return the files of all pictures that are there."""
        return [self._original(record) for file in self.files.values() for record in file.records]

    def fingerprint(self) -> str:
        """Return a hash of the annotations of train and val, and of how they were parted."""
        digests = [self.found.digest(split) for split in SPLITS if split in self.found.parts]
        digests += [] if self._division is None else [self._division.identity]
        return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]

    def split_facts(self) -> dict[str, Any]:
        """Return how a set without val was parted: rule, hash of the manifest, pictures."""
        if self._division is None:
            return {}
        counts = {split: len(self.records(split)) for split in SPLITS}
        hashed = splits.digest(self.manifest())
        return {"rule": str(self._division), "hash": hashed, **counts}

    def manifest(self) -> str:
        """Return which picture is in which split, where this was decided here, else nothing."""
        if self._division is None:
            return ""
        return splits.text({s: [r.file for r in self.files[s].records] for s in SPLITS})

    def splits(self) -> Sequence[str]:
        """Return train and val, and test where it is there."""
        return PARTS if "test" in self.found.parts else SPLITS

    def survey(self, split: str) -> tuple[list[Record], list[Finding]]:
        """Return what of a split can be used and what is wrong with it."""
        file = self.file(split)
        if file is None:
            return [], [finding("val-missing", str(self.found.root), details=[str(self.found)])]
        return file.records, file.listed()

    def file(self, split: str) -> CocoFile | None:
        """Return what can be used of a split, None for a val that there is not."""
        return self._tested if split == "test" else self.files.get(split)

    @cached_property
    def found(self) -> Layout:
        """The annotation files of each split. Raises UserError where there are none."""
        from segsweep.data.layouts.coco import plain
        from segsweep.data.layouts.find import found, of_files

        named = {part: path for part in PARTS if (path := getattr(self, part)) is not None}
        enough = "train" in named and ("val" in named or self.split is not None)
        if self.root is None and (self.images is None or not enough):
            raise UserError(
                "data.root: give the folder of the annotations and pictures, "
                "as in data.root=my/folder (or all of data.train, data.val, data.images)"
            )
        root = Path(self.root or "")
        if not root.is_dir():
            cure = "; it must be a folder: unpack an archive" if root.is_file() else ""
            raise UserError(f"data.root={root}: there is no such folder{cure}")
        for part, path in named.items():
            if not (root / path).is_file():
                raise UserError(f"data.{part}: no annotation file {path} in {root}")
        files = {part: [root / path] for part, path in named.items()}
        if enough:
            return of_files(root, files)
        layout = (None if self.layout else plain(root, files)) or found(root, self.layout)
        layout = replace(layout, parts=layout.parts | files)
        if "train" not in layout.parts:
            raise UserError(
                f"data.train: no annotation file of train in {root} ({layout}); "
                "name it with data.train=path/to/file.json"
            )
        return layout

    @cached_property
    def _copies(self) -> dict[str, Copies]:
        """The copies of each split; those of test are not made before somebody asks for it."""
        from segsweep.data.copies import Copies

        facts = self, self.longest, self.cache, self._items
        return dict.fromkeys(SPLITS, Copies(*facts, SPLITS)) | {"test": Copies(*facts, ("test",))}

    def _items(self, split: str) -> list[Item]:
        return [Item(r.file, self._original(r), r) for r in self.originals(split)]

    @cached_property
    def _folder(self) -> Path:
        """The folder of the pictures."""
        root = Path(self.root or "")
        inside = root / "images"
        own = root if self.found.title or not inside.is_dir() else inside
        folder = root / self.images if self.images else own
        if not folder.is_dir():
            raise UserError(f"data.images={folder}: there is no such folder")
        return folder

    @cached_property
    def _division(self) -> splits.Share | splits.Manifest | None:
        """How a set without val is parted."""
        if self.split is not None and "val" in self.found.parts:
            raise UserError(
                f"data.split={self.split}: the set has a val of its own ({self.found}); "
                "data.split parts a set that has none"
            )
        return None if self.split is None else division(self.split)

    @cached_property
    def _accepted(self) -> dict[str, CocoFile]:
        """Both splits without fatal findings; told once of what was left out."""
        parts = [split for split in SPLITS if split in self.splits()]
        accept([finding for split in parts for finding in self.survey(split)[1]])
        return self.files

    @cached_property
    def _accepted_test(self) -> dict[str, CocoFile]:
        """The same of test, which training does not read."""
        accept(self._tested.listed())
        return {"test": self._tested}

    @cached_property
    def files(self) -> dict[str, CocoFile]:
        """What can be used of both splits: contiguous categories, existing pictures."""
        from segsweep.data.formats.coco_file import divided

        files = self._read(SPLITS)
        if self._division is None:
            return files
        return divided(files["train"], self._division.keys(r.file for r in files["train"].records))

    @cached_property
    def _tested(self) -> CocoFile:
        """What can be used of test: its classes are those of train."""
        return self._read(("train", "test"))["test"]

    def _read(self, splits: Sequence[str]) -> dict[str, CocoFile]:
        from segsweep.data.formats.listing import Pictures
        from segsweep.data.layouts.places import of_split

        pictures = Pictures(self._folder, Path(self.root) if self.root else None)
        parts = self.found.parts
        if self.found.title:
            tell(self.root, str(self.found))
        wanted = {s: of_split(pictures, s, parts[s]) for s in splits if s in parts}
        files = replace(self.found, needs_masks=self.needs_masks).read(wanted)
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


@cache
def tell(root: str | None, layout: str) -> None:
    """Say once how a folder is read, where its files do not lie where they are looked for first."""
    print(f"reading {root} as {layout}", file=sys.stderr, flush=True)

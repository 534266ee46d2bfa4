"""A folder of annotated pictures in the format of one program, read into what training uses.

    folder --find--> Layout --pictured--> COCO form --examine--> trusted records, findings

A format is one file of this package with one class derived from `Layout`: `find` tells by names,
and by the heads of a few files, whether a folder is of it; `pictured` reads the pictures and
objects of a split. All the rest is here and in `find.py`, and nothing lists the formats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.data.layouts.tree import PICTURES

if TYPE_CHECKING:
    from segsweep.data.findings import Findings
    from segsweep.data.formats.coco_file import CocoFile
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.layouts.tree import Tree

SOME = 10  # outlines that tell how objects are drawn

Classes = Mapping[Any, tuple[int, str]]
"""Number and name of the class of each label."""


@dataclass
class DrawnObject:
    """One object: `name` is what findings call it, `label` its class, "" where it has none."""

    name: str
    label: Any
    segmentation: Any  # polygons or RLE; None of a box alone
    box: list[float] | None = None  # [x, y, w, h] of such


@dataclass
class AnnotatedPicture:
    """One picture and what is drawn on it; `file` is relative to the folder of the pictures.

    It is not `complete` if something was drawn on it that is no object or has no class.
    """

    file: str
    size: tuple[int, int]  # height, width
    objects: list[DrawnObject]
    complete: bool = True


@dataclass(frozen=True)
class Layout:
    """A folder of one format.

    `parts` are the annotation files of each split ("train", and where they are "val" and "test"),
    `pictures` those pictures that belong to a split although no annotation names them.
    Objects that are boxes alone are left out where it `needs_masks`.
    """

    root: Path
    title: str  # "" for files that lie where they are looked for first, or that somebody named
    parts: dict[str, list[Path]]
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    needs_masks: bool = True

    hint: ClassVar[str]  # what such a folder holds, for those who have none
    weak: ClassVar[bool] = False  # counts only where no other format is found

    @classmethod
    def find(cls, tree: Tree) -> Layout | None:
        """Return how a folder is read, None if it is of another format."""
        raise NotImplementedError

    @classmethod
    def reads(cls, keys: frozenset[str]) -> bool:
        """Tell by the keys in its head whether a JSON file alone is of this format."""
        return False

    @classmethod
    def refuses(cls, keys: frozenset[str]) -> str:
        """Return what a JSON file is that looks alike and cannot be read, "" for any other."""
        return ""

    def pictured(
        self, split: str, places: Pictures, findings: Findings
    ) -> Iterator[AnnotatedPicture]:
        """Yield the pictures of a split; what cannot be used is a finding."""
        raise NotImplementedError

    def classes(self, labels: set[Any]) -> Classes:
        """Return the classes, given the labels that occur in any split: all, by name."""
        return {label: (n, str(label)) for n, label in enumerate(sorted(labels), start=1)}

    def read(self, places: Mapping[str, Pictures]) -> dict[str, CocoFile]:
        """Return what can be used of the splits that `places` has, and what is wrong with them."""
        from segsweep.data.findings import Findings
        from segsweep.data.formats.coco_file import CocoFile, examine

        paths = {split: self.place(split) for split in places}
        files = {
            s: CocoFile(path, {}, [], Findings(str(path)), needs_masks=self.needs_masks)
            for s, path in paths.items()
        }
        pictures = {s: [*self.pictured(s, places[s], f.findings)] for s, f in files.items()}
        labelled(pictures, {split: file.findings for split, file in files.items()})
        classes = self.classes({o.label for several in pictures.values() for o in drawn(several)})
        for split, file in files.items():
            outlines = [one.segmentation for one in drawn(pictures[split])]
            if self.needs_masks and boxes(outlines):
                file.findings.add("four-corners")
            examine(file, content(pictures[split], classes), places[split])
            incomplete = {picture.file for picture in pictures[split] if not picture.complete}
            for record in file.records:
                record.complete &= record.file not in incomplete
            for code in ("annotation-id-text", "filled-in"):  # there are neither ids nor boxes
                file.findings.by_code.pop(code, None)
        return files

    def original(self, split: str) -> dict[str, Any]:
        """Return the COCO file whose further keys a clean copy keeps; nothing of other formats."""
        return {}

    def place(self, split: str) -> Path:
        """Return what findings of a split call it: its file, or the folder of its files."""
        paths = self.parts[split]
        if len(paths) < 2:
            return paths[0] if paths else self.root
        return Path(os.path.commonpath([path.parent for path in paths]))

    def digest(self, split: str) -> str:
        """Return a hash of the content of a split: its files, and the names of its pictures."""
        paths = self.parts[split]
        hashes = [digest(path, path.stat().st_mtime_ns) for path in paths]
        if len(paths) == 1 and not self.pictures:
            return hashes[0]
        pictures = self.pictures.get(split, [])
        named = [path.relative_to(self.root).as_posix() for path in (*paths, *pictures)]
        return sha256("\n".join([*named, *hashes]).encode()).hexdigest()

    def __str__(self) -> str:
        words = []
        for split, paths in self.parts.items():
            place = self.place(split)
            place = place.relative_to(self.root) if place.is_relative_to(self.root) else place
            count = f" ({len(paths)} files)" if len(paths) > 1 else ""
            words.append(f"{split} {place.as_posix()}{count}")
        return f"{self.title or 'annotations'}: {', '.join(words)}"


@lru_cache(maxsize=1 << 17)
def digest(path: Path, modified: int) -> str:
    """Return the hash of a file's bytes; a sweep of many runs reads an unchanged file once."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def drawn(pictures: list[AnnotatedPicture]) -> Iterator[DrawnObject]:
    """Yield the objects of pictures."""
    return (one for picture in pictures for one in picture.objects)


def boxes(outlines: list[Any]) -> bool:
    """Tell whether all of some outlines have four corners: few programs draw objects so."""
    rings = [outline[0] for outline in outlines if isinstance(outline, list) and outline]
    return len(outlines) >= SOME and len(rings) == len(outlines) and {8} == {*map(len, rings)}


def unannotated(used: set[str], places: Pictures, findings: Findings) -> None:
    """Tell the pictures beside used ones that are none: nothing says that they hold no objects."""
    folders = {path.rpartition("/")[0] for path in used}
    for path in sorted(set(places.paths.values()) - used):
        if path.lower().endswith(PICTURES) and path.rpartition("/")[0] in folders:
            findings.add("picture-unannotated", path)


def labelled(
    pictures: Mapping[str, list[AnnotatedPicture]], findings: Mapping[str, Findings]
) -> None:
    """Give objects without a label their class, or leave them out.

    All are "object" where nothing has a label. In a split where nothing has one they are of the
    only class of the other splits. Any other is left out.
    """
    labels = {split: {one.label for one in drawn(several)} for split, several in pictures.items()}
    known = set().union(*labels.values()) - {""}
    for split, several in pictures.items():
        bare = labels[split] == {""}
        label = "object" if not known else next(iter(known)) if bare and len(known) == 1 else ""
        for one in (one for one in drawn(several) if one.label == ""):
            one.label = label
            if known:
                code = "region-class-taken" if label else "region-unlabelled"
                findings[split].add(code, one.name, f"{one.name} is {label}" if label else "")
        for picture in several:
            of_class = [one for one in picture.objects if one.label != ""]
            picture.complete &= len(of_class) == len(picture.objects)
            picture.objects = of_class


def content(pictures: list[AnnotatedPicture], classes: Classes) -> dict[str, list[Any]]:
    """Return pictures in COCO form; ids of annotations are what findings call them."""
    images, annotations = [], []
    for number, picture in enumerate(pictures, start=1):
        height, width = picture.size
        images.append({"id": number, "file_name": picture.file, "height": height, "width": width})
        for one in picture.objects:
            category = classes[one.label][0] if one.label in classes else one.label
            entry = {"id": one.name, "image_id": number, "category_id": category}
            entry |= {"bbox": one.box} if one.box else {}
            annotations.append(entry | {"segmentation": one.segmentation})
    categories = [{"id": number, "name": name} for number, name in classes.values()]
    return {"images": images, "annotations": annotations, "categories": categories}

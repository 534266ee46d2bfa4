"""What is checked: the splits of a data set, or one bare annotation file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.data.base import DataSet, Record
from segsweep.data.findings import Finding, Findings, ordered
from segsweep.data.kinds import KINDS, Kind
from segsweep.data.layouts.base import Layout
from segsweep.data.layouts.find import of_files
from segsweep.data.sets.coco import Coco


@dataclass
class Part:
    """One split or file under check; `defects` collects what its pictures tell."""

    name: str
    data: DataSet
    records: list[Record]
    read: list[Finding]  # by the reader of the annotations
    defects: Findings = field(default_factory=lambda: Findings(""))

    def findings(self) -> list[Finding]:
        """Return all findings of this part."""
        return self.read + self.defects.listed()


@dataclass(frozen=True)
class JoinedFinding:
    """What is wrong in one way: the findings of a code in all parts, with the parts' names."""

    code: str
    places: list[tuple[str, Finding]]

    @property
    def kind(self) -> Kind:
        """What is common to all of them."""
        return KINDS[self.code]

    @property
    def where(self) -> str:
        """The parts that have it and how often: "train 12, val 3"."""
        counts = ((name, len(finding.ids)) for name, finding in self.places)
        return ", ".join(f"{name} {count}" if count else name for name, count in counts)


def joined(parts: Iterable[Part]) -> list[JoinedFinding]:
    """Return the findings of all parts by code, the worst first; what parts share stands once."""
    found: dict[tuple[str, str, str], tuple[list[str], Finding]] = {}
    for part in parts:
        for finding in part.findings():
            key = (finding.code, finding.file, finding.what)
            found.setdefault(key, ([], finding))[0].append(part.name)
    places = [(", ".join(names), finding) for names, finding in found.values()]
    codes = dict.fromkeys(finding.code for finding in ordered(f for _, f in places))
    return [JoinedFinding(code, [p for p in places if p[1].code == code]) for code in codes]


@dataclass
class Single(Coco):
    """A bare annotation file, `train`, with pictures below `images`."""

    @cached_property
    def found(self) -> Layout:
        """The file alone."""
        path = Path(str(self.train))
        return of_files(path.parent, {"train": [path]})

    def splits(self) -> Sequence[str]:
        """Return the one part."""
        return ("train",)


def parts(data: DataSet) -> list[Part]:
    """Return the splits of a data set, or the one part of a bare file."""
    result = []
    for split in data.splits():
        records, findings = data.survey(split)
        if split == "test" and any(f.code == "no-annotations" for f in findings):
            continue  # a list of pictures to predict on
        file = data.file(split) if isinstance(data, Coco) else None
        name = file.path.name if file and isinstance(data, Single) else split
        where = str(file.path) if file else f"{data.name} {split}"
        result.append(Part(name, data, records, findings, Findings(where)))
    return result


def classes(data: DataSet) -> list[str]:
    """Return the names of the classes, also of a set that training would refuse."""
    if isinstance(data, Coco):
        return list(data.files["train"].categories.values())
    try:
        return data.classes()
    except UserError:
        return []


def single(path: Path, images: Path | None) -> Single:
    """Return a bare file as a data set. Raises UserError if there is no such file or folder."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: there is no such folder")
    candidates = [path.parent / "images", path.parent.parent / "images", path.parent]
    folder = images or next(place for place in candidates if place.is_dir())
    return Single(name=path.stem, train=str(path), images=str(folder.resolve()))

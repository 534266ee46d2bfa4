"""What is checked: the splits of a data set, or one bare COCO or VIA file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, DataSet, Record
from segsweep.data.findings import Finding, Findings
from segsweep.data.formats import via
from segsweep.data.formats.coco_file import CocoFile, examine, parse
from segsweep.data.formats.listing import Pictures
from segsweep.data.sets.coco import Coco, number

OPEN = 0.1  # of the diagonal of its box: a polyline whose ends are farther apart is open


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


@dataclass
class Single(Coco):
    """A bare annotation file, `train`, with pictures below `images`."""

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {"train": Path(str(self.train))}


@dataclass
class ViaFile(Single):
    """A bare file of the VGG Image Annotator, read as if it were a COCO file."""

    @cached_property
    def files(self) -> dict[str, CocoFile]:
        """The file, with contiguous categories and existing pictures."""
        path, pictures = self._paths["train"], Pictures(self._folder)
        file = CocoFile(path, {}, [], Findings(str(path)))
        try:
            content = coco_of(file, pictures)
        except UserError as error:
            file.findings.add("file-unreadable", detail=str(error).removeprefix(f"{path}: "))
            return {"train": file}
        examine(file, content)
        for code in ("annotation-id-text", "filled-in"):  # VIA has neither ids nor boxes
            file.findings.by_code.pop(code, None)
        number(file, file.categories)
        return {"train": file}


def parts(data: DataSet) -> list[Part]:
    """Return the splits of a data set, or the one part of a bare file."""
    result = []
    for split in ("train",) if isinstance(data, Single) else SPLITS:
        records, findings = data.survey(split)
        path = data.files[split].path if isinstance(data, Coco) else f"{data.name} {split}"
        name = Path(path).name if isinstance(data, Single) else split
        result.append(Part(name, data, records, findings, Findings(str(path))))
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
    kind = ViaFile if is_via(path) else Single
    return kind(name=path.stem, train=str(path), images=str(folder.resolve()))


def is_via(path: Path) -> bool:
    """Tell whether a file is of VIA; what cannot be parsed is left to the reader of COCO files."""
    try:
        content = parse(path)
    except UserError:
        return False
    entries = [value for value in content.values() if isinstance(value, dict)]
    return "_via_img_metadata" in content or any("regions" in entry for entry in entries)


def coco_of(file: CocoFile, pictures: Pictures) -> dict[str, list[Any]]:
    """Return a VIA file as content of a COCO file; ids of annotations name entry and region."""
    images, faults = via.read(file.path)
    for fault in faults:
        where = fault.entry if fault.region is None else f"{fault.entry} region {fault.region}"
        file.findings.add("region-unusable", where, f"{where}: {fault.reason}")
    unusable = {(fault.entry, fault.region) for fault in faults}
    label_name = label_key(images)
    names = {label(region, label_name) for image in images for region in image.regions} - {""}
    category = {name: place for place, name in enumerate(sorted(names), start=1)}
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": place, "name": name} for name, place in category.items()]
    for place, image in enumerate(images, start=1):
        entry = sized(image, pictures, file.findings)
        if entry is None:
            continue
        content["images"].append({"id": place} | entry)
        numbers = (n for n in count() if (image.key, n) not in unusable)
        for region, n in zip(image.regions, numbers, strict=False):
            where, name = f"{image.key} region {n}", label(region, label_name)
            if not name:
                file.findings.add("region-unlabelled", where)
                continue
            if region.gap > OPEN:
                file.findings.add("polyline-open", where)
            entry_of = {"id": where, "image_id": place, "category_id": category[name]}
            content["annotations"].append(entry_of | {"segmentation": [region.polygon]})
    return content


def sized(image: via.ViaImage, pictures: Pictures, findings: Findings) -> dict[str, Any] | None:
    """Return name and size of a picture, which VIA does not tell, or None if it has none."""
    path = pictures.find(image.file)
    if path is None:
        findings.add("picture-missing", image.file, f"{image.file} is not in {pictures.folder}")
        return None
    try:
        _, (height, width) = pictures.sizes(path)
    except UserError as error:
        findings.add("picture-broken", image.file, str(error))
        return None
    if image.bytes > 0 and image.bytes != (pictures.folder / path).stat().st_size:
        findings.add("picture-changed", image.file)
    return {"file_name": path, "height": height, "width": width}


def label_key(images: list[via.ViaImage]) -> str:
    """Return the attribute that most regions have: the one that holds the label."""
    regions = [region for image in images for region in image.regions]
    keys = Counter(key for region in regions for key, value in region.attributes.items() if value)
    return keys.most_common(1)[0][0] if keys else ""


def label(region: via.ViaRegion, key: str) -> str:
    """Return the label of a region, empty if it has none; all are objects where nothing has one."""
    return region.attributes.get(key, "") if key else "object"

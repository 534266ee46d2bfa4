"""Files of the VGG Image Annotator (VIA 1 and 2), exports and projects.

train/via_region_data.json, train/*.jpg, val/...      or names that tell the split
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.data.layouts.base import AnnotatedPicture, DrawnObject, Layout
from segsweep.data.layouts.places import sized
from segsweep.data.layouts.tree import by_split

if TYPE_CHECKING:
    from segsweep.data.findings import Findings
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.formats.via import ViaImage, ViaRegion
    from segsweep.data.layouts.tree import Tree

OPEN = 0.1  # of the diagonal of its box: a polyline whose ends are farther apart is open
VIA3 = frozenset({"project", "pid", "vid_list"})


class ViaLayout(Layout):
    """Annotations of VIA."""

    hint = "JSON files of VIA 1 or 2 (via_region_data.json)"

    @classmethod
    def find(cls, tree: Tree) -> ViaLayout | None:
        """Return the VIA files of each split, named by themselves or by their folder."""
        parts = by_split((p for p, keys in tree.jsons.items() if cls.reads(keys)), tree.root)
        return cls(tree.root, "VIA (VGG Image Annotator)", parts) if parts else None

    @classmethod
    def reads(cls, keys: frozenset[str]) -> bool:
        """Tell by the keys in its head whether a JSON file is of VIA."""
        return "_via_img_metadata" in keys or {"filename", "regions"} <= keys

    @classmethod
    def refuses(cls, keys: frozenset[str]) -> str:
        """Tell what a project of VIA 3 is."""
        cure = "only versions 1 and 2 are read: draw or convert the regions with VIA 2"
        return f"a VIA 3 project; {cure}" if keys >= VIA3 else ""

    def pictured(
        self, split: str, places: Pictures, findings: Findings
    ) -> Iterator[AnnotatedPicture]:
        """Yield the pictures of the files of a split; objects are called by entry and region."""
        from segsweep.data.formats import via

        images, unusable = [], set()
        for path in self.parts[split]:
            try:
                entries, faults = via.read(path)
            except UserError as error:
                findings.add("file-unreadable", detail=str(error).removeprefix(f"{path}: "))
                continue
            images += entries
            for fault in faults:
                where = fault.entry
                where += "" if fault.region is None else f" region {fault.region}"
                findings.add("region-unusable", where, f"{where}: {fault.reason}")
                unusable.add((fault.entry, fault.region))
        key = label_key(images)
        for image in images:
            place = sized(places, image.file, findings)
            if place is None:
                continue
            path, size = place
            if image.bytes > 0 and image.bytes != (places.folder / path).stat().st_size:
                findings.add("picture-changed", image.file)
            numbers = (n for n in count() if (image.key, n) not in unusable)
            objects = []
            for region, number in zip(image.regions, numbers, strict=False):
                name = f"{image.key} region {number}"
                if region.gap > OPEN:
                    findings.add("polyline-open", name)
                objects.append(DrawnObject(name, label(region, key), [region.polygon]))
            complete = all(entry != image.key for entry, _ in unusable)
            yield AnnotatedPicture(path, size, objects, complete)


def label_key(images: list[ViaImage]) -> str:
    """Return the attribute that most regions have: the one that holds the label."""
    regions = [region for image in images for region in image.regions]
    keys = Counter(key for region in regions for key, value in region.attributes.items() if value)
    return keys.most_common(1)[0][0] if keys else ""


def label(region: ViaRegion, key: str) -> str:
    """Return the label of a region, empty if it has none."""
    return region.attributes.get(key, "") if key else ""

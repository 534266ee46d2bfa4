"""Cityscapes: street scenes of German cities, its eight classes of objects (Cordts 2016).

    leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_instanceIds.png     16 bits

A pixel's number is 1000 * label + count for an object, the bare label for a group of objects that
nobody told apart and for everything else. Masks are taken from these numbers, not from the
polygons, which overlap: what a later object hides is not seen, and an object that is hidden wholly
is left out. Groups are crowds; void is what the benchmark does not evaluate, by its label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, Annotation
from segsweep.data.items import Content, Facts, Item
from segsweep.data.source import Source

if TYPE_CHECKING:
    import numpy as np

LABELS = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
# labels with ignoreInEval in labels.py of cityscapesScripts; there, too, single caravans (29) and
# trailers (30) are not void, because their numbers are no bare labels
VOID = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30]
OBJECTS = 1000  # numbers from here on are single objects


@dataclass
class Cityscapes(Source):
    """Objects in streets; train and val are different cities, as published."""

    facts: ClassVar[Facts] = Facts(
        title="Cityscapes, fine annotations",
        licence="own terms: non-commercial, no redistribution",
        citation="Cordts et al. 2016, The Cityscapes Dataset for Semantic Urban Scene "
        "Understanding, CVPR, arXiv:1604.01685",
        obtain="register at cityscapes-dataset.com, unpack leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip in one folder",
        images={"train": 2975, "val": 500},
    )

    def classes(self) -> list[str]:
        """Return the eight classes that the benchmark evaluates."""
        return list(LABELS.values())

    def category_ids(self) -> list[int]:
        """Return their labels."""
        return list(LABELS)

    def items(self) -> dict[str, list[Item]]:
        """Return the pictures of the published splits, grouped by city.

        Raises UserError for missing folders, and for pictures without annotation or vice versa.
        """
        from segsweep.data.formats.pairs import by_stem, pair

        def files(part: str, suffix: str) -> dict[str, Path]:
            folder = self.place(part)
            return by_stem(folder, *sorted(folder.glob("[!.]*/")), suffix=suffix)

        splits = {
            split: pair(
                self.folder,
                files(f"leftImg8bit/{split}", "_leftimg8bit"),
                files(f"gtFine/{split}", "_gtfine_instanceids"),
            )
            for split in SPLITS
        }
        return {
            split: [replace(item, group=item.image.parent.name) for item in items]
            for split, items in splits.items()
        }

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read the objects, the groups and the void of a picture; their ids are its numbers."""
        import numpy as np

        from segsweep.data.formats import masks

        numbers = read_numbers(item.annotation)
        classes, objects = list(LABELS), []
        for number in map(int, np.unique(numbers)):
            label = number // OBJECTS if number >= OBJECTS else number
            if label in LABELS:
                rle = masks.encode((numbers == number)[None])[0]
                category, crowd = classes.index(label), number < OBJECTS
                objects.append(Annotation(category, rle, [], 0, crowd, number))
        height, width = numbers.shape
        void = masks.encode(np.isin(numbers, VOID)[None])[0]
        return Content((height, width), objects, meta={"city": item.group}, void=void)


def read_numbers(path: Path) -> np.ndarray:
    """Read instanceIds. -> (H, W) int32

    Raises UserError for files of another kind, such as the colours beside them.
    """
    import numpy as np

    from segsweep.data.formats.pairs import opened

    image = opened(path)
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise UserError(f"{path}: holds {image.mode} values, must hold 16-bit numbers of objects")
    return values.astype(np.int32)  # 16 bits or 32, as Pillow's release has it

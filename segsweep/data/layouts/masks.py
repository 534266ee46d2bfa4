"""Folders of pictures and masks.

    images/a.jpg, masks/a.png             one mask for each picture, also as a.png and a_mask.png
    a/images/a.png, a/masks/*.png         one mask for each object (Data Science Bowl 2018)

Masks of two values say only where objects are: each connected piece is one. Of more values each is
one, as microscopy numbers its cells; masks of class numbers are refused, for data=semantic is made
for these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.layouts import outlines
from segsweep.data.layouts.base import AnnotatedPicture, DrawnObject, Layout, unannotated
from segsweep.data.layouts.places import sized
from segsweep.data.layouts.tree import PICTURES, by_split

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.findings import Findings
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.layouts.tree import Tree

IMAGES = {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"}
MASKS = {"masks", "mask", "labels", "label", "annotations", "gt", "groundtruth", "ground_truth",
         "segmentation", "segmentations", "segmentationobject", "instances"}  # fmt: skip
ENDING = re.compile(r"[_-](masks?|labels?|gt|seg|instances?)$", re.IGNORECASE)
SAMPLE = 40  # masks that tell what values mean
ALIKE = 8  # masks of the same values: no number of objects is the same so often
RIM = 0.02  # of the pixels of a mask of two values may be grey
WHITE = 127  # half of it
VOID = 255  # of palette masks that hold other values, too: a rim around objects (Pascal VOC)


@dataclass(frozen=True)
class MaskFolders(Layout):
    """Pictures with masks; `masks` are those of each picture."""

    masks: dict[Path, list[Path]] = field(default_factory=dict)

    hint = "folders of pictures and of masks (images/ and masks/, or a.png and a_mask.png)"
    weak = True

    @classmethod
    def find(cls, tree: Tree) -> MaskFolders | None:
        """Return pictures and masks that belong together by their names."""
        masks = _matched(tree.ending(*PICTURES))
        if not masks:
            return None
        pictures = by_split(masks, tree.root)
        whole = {tree.root / path: [tree.root / m for m in masks[path]] for path in masks}
        parts = {s: [m for path in paths for m in whole[path]] for s, paths in pictures.items()}
        return cls(tree.root, "folders of masks", parts, pictures, masks=whole)

    def pictured(
        self, split: str, places: Pictures, findings: Findings
    ) -> Iterator[AnnotatedPicture]:
        """Yield the pictures of a split; objects are called by mask and number."""
        used = set()
        findings.add("masks-read", detail=self._meaning)
        for path in self.pictures[split]:
            place = sized(places, path.relative_to(self.root).as_posix(), findings)
            if place is None:
                continue
            objects, size = [], place[1]
            for mask in self.masks[path]:
                name = mask.relative_to(self.root).as_posix()
                try:
                    numbers = self._numbers(mask)
                except UserError as error:
                    findings.add("file-unreadable", name, str(error))
                    continue
                size = numbers.shape  # that of the picture is compared with it later
                objects += [
                    DrawnObject(f"{name} object {n}", "", rle)
                    for n, rle in enumerate(_objects(numbers), start=1)
                ]
            used.add(place[0])
            yield AnnotatedPicture(place[0], (size[0], size[1]), objects)
        masks = {path.relative_to(places.folder).as_posix() for path in self.parts[split]
                 if path.is_relative_to(places.folder)}  # fmt: skip
        unannotated(used | masks, places, findings)

    def _numbers(self, path: Path) -> np.ndarray:
        """Return a mask with a number for each object. (H, W) int"""
        values = _values(path)
        if self._meaning == PIECES:
            return _pieces(_where(values))
        return _where(values).astype(int) if self._meaning == FILES else values

    @cached_property
    def _meaning(self) -> str:
        """What one object is. Raises UserError for masks of class numbers."""
        if any(len(several) > 1 for several in self.masks.values()):
            return FILES
        paths = [mask for several in self.masks.values() for mask in several]
        sample = [path for path in paths[:: max(1, len(paths) // SAMPLE)] if not _is_lossy(path)]
        many = [values for values in map(_values, sample) if not _is_binary(values)]
        if not many:
            return PIECES
        whole = [_in_one_piece(values) for values in many]
        used = {tuple(sorted(numbers)) for numbers in whole}
        single = [one for numbers in whole for one in numbers.values()]
        if sum(single) < len(single) / 2 or (len(used) == 1 and len(many) >= ALIKE):
            raise UserError(
                f"{paths[0]}: the masks hold numbers of classes ({sorted(whole[0])[:8]}), not of "
                "objects; data=semantic is for these (train.csv and val.csv of image,label, and "
                "classes.json)"
            )
        return VALUES


FILES = "each mask file is one object"
PIECES = "each connected piece of a mask is one object"
VALUES = "each value of a mask is one object"


def _matched(paths: Sequence[str]) -> dict[str, list[str]]:
    """Return the masks of each picture that has some."""
    masks = [path for path in paths if _is_mask(path)]
    known = set(masks)
    pictures: dict[str, str] = {}
    above: dict[str, list[str]] = {}
    for path in (path for path in paths if path not in known):
        key = _key(path, IMAGES)
        pictures.setdefault(key, path)
        above.setdefault(key.rpartition("/")[0], []).append(path)
    matched: dict[str, list[str]] = {}
    for mask in masks:
        key = _key(mask, MASKS)
        alone = above.get(key.rpartition("/")[0], [])
        picture = pictures.get(key) or (alone[0] if len(alone) == 1 else None)
        if picture:
            matched.setdefault(picture, []).append(mask)
    return dict(sorted(matched.items()))


def _is_mask(path: str) -> bool:
    place = PurePosixPath(path)
    inside = any(part.lower() in MASKS for part in place.parts[:-1])
    return inside or ENDING.search(place.stem) is not None


def _key(path: str, folders: set[str]) -> str:
    """Return what a picture and its mask are both called: without suffixes and such folders."""
    place = PurePosixPath(path)
    parts = [part for part in place.parts[:-1] if part.lower() not in folders]
    return "/".join([*parts, ENDING.sub("", place.stem)])


def _values(path: Path) -> np.ndarray:
    """Return the values of a mask, colours as one number. (H, W) int"""
    import numpy as np

    from segsweep.data.formats.pairs import opened

    image = opened(path)
    if image.mode in ("RGBA", "LA", "CMYK", "YCbCr"):
        image = image.convert("RGB" if image.mode != "LA" else "L")
    values = np.asarray(image)
    if values.ndim == 2:
        values = values.astype(int)
        void = image.mode == "P" and ((values > 0) & (values < VOID)).any()
        return np.where(values == VOID, 0, values) if void else values
    red, green, blue = (values[..., k].astype(int) for k in range(3))
    if (red == green).all() and (red == blue).all():
        return red
    return (red << 16) + (green << 8) + blue


def _is_lossy(path: Path) -> bool:
    """Tell whether a format blurs numbers, so that a mask of it can only be black and white."""
    return path.suffix.lower() in (".jpg", ".jpeg")


def _is_binary(values: np.ndarray) -> bool:
    """Tell whether a mask has two values, but for grey rims."""
    import numpy as np

    used, counts = np.unique(values, return_counts=True)
    between = counts[1:-1].sum() if used[0] == 0 else counts[:-1].sum()
    lossy = used[-1] > WHITE and len(used) > 2 and used[-1] < 256
    return len(used) <= 2 or bool(lossy and between <= RIM * values.size)


def _where(values: np.ndarray) -> np.ndarray:
    """Return where a mask of two values has its objects: at the upper one. (H, W) bool"""
    low, high = values.min(), values.max()
    if high > WHITE >= low:
        return values > WHITE
    return values > (low if low < high else 0)


def _pieces(mask: np.ndarray) -> np.ndarray:
    """Return a mask with a number for each of its connected pieces, corners too. (H, W) int"""
    from scipy import ndimage

    numbers: Any = ndimage.label(mask, structure=[[1] * 3] * 3)
    return numbers[0]


def _in_one_piece(values: np.ndarray) -> dict[int, bool]:
    """Return for each value but 0 whether its pixels are one connected piece."""
    import numpy as np
    from scipy import ndimage

    numbers, place = np.unique(values, return_inverse=True)
    place = place.reshape(values.shape) + (numbers[0] != 0)
    found = ndimage.find_objects(place)
    return {
        int(value): _pieces(place[box] == n).max() == 1
        for n, (value, box) in enumerate(zip(numbers[numbers != 0], found, strict=True), start=1)
        if box is not None
    }


def _objects(numbers: np.ndarray) -> Iterator[dict]:
    """Yield the run lengths of each number but 0."""
    import numpy as np
    from scipy import ndimage

    used, place = np.unique(numbers, return_inverse=True)
    place = place.reshape(numbers.shape) + (used[0] != 0)
    for number, box in enumerate(ndimage.find_objects(place), start=1):
        if box is not None:
            rows, columns = box
            crop = place[box] == number
            yield outlines.runs(crop, (rows.start, columns.start), numbers.shape)

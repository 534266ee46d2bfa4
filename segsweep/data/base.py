"""What a data set is: records of images with instance annotations, and how its images are resized.

A set is one file with one dataclass derived from `DataSet` (facts and `records`), one yaml, and
nothing else. Records follow the COCO form, because every annotation tool can write it; only ids of
categories are made contiguous. Nothing here imports torch or reads a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import Choice, neutral, outside
from segsweep.base.errors import UserError
from segsweep.base.fields import default_of
from segsweep.data.resizing import LSJ, Crop, Fit, RandomPart, Squash

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from segsweep.data.findings import Finding
    from segsweep.data.formats.images import Levels

SPLITS = ("train", "val")
BACKGROUND, IGNORE = 254, 255
"""Values of label maps that are no class: nothing of interest; unknown, counted nowhere."""
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255
IMAGENET_STD = (58.395, 57.12, 57.375)

Segmentation = dict[str, Any] | Sequence[Sequence[float]]
"""RLE {"size": [h, w], "counts": runs or their compressed string}, or polygons [x1, y1, ...]."""

Transform = Enum(
    "Transform",
    {"squash": Squash(), "lsj": LSJ(), "fit": Fit(), "crop": Crop(), "part": RandomPart()},
)
Resample = Enum("Resample", {"bilinear": "bilinear", "bicubic": "bicubic"})
Negatives = Enum("Negatives", {"drop": "drop", "keep": "keep"})
Boxes = Enum("Boxes", {"mask": "mask", "annotation": "annotation"})


@dataclass
class Annotation:
    """One instance. `category` is contiguous (0..K-1); `bbox` is [x, y, w, h] and in pixels."""

    category: int
    segmentation: Segmentation | None  # None of an object that is annotated as a box alone
    bbox: list[float]
    area: float
    iscrowd: bool = False
    id: int = 0

    @property
    def shape(self) -> Segmentation:
        """Its mask, or the rectangle of its box where it has none."""
        if self.segmentation is not None:
            return self.segmentation
        x, y, w, h = self.bbox
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@dataclass
class Record:
    """One image and what is on it; `file` is relative to the set's images.

    Semantic sets have a label map instead of annotations: `labels` is its file, an 8-bit PNG of the
    image's size whose values are contiguous classes, BACKGROUND or IGNORE. `meta` holds columns of
    the annotation file that tell images apart (a camera, a species), for results by slice. `void`
    is where nothing was labelled: metrics that know void (Cityscapes) count nothing there.
    """

    image_id: int
    file: str
    height: int
    width: int
    annotations: list[Annotation]
    labels: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    void: Segmentation | None = None
    complete: bool = outside(True)  # False if something was annotated that could not be read

    @property
    def negative(self) -> bool:
        """Whether it is known that no object is on it; label maps are no such statement."""
        return self.complete and not self.annotations and self.labels is None


@dataclass(frozen=True)
class Subject:
    """What a model is built to find: classes told by `texts`, in the form of `task`.

    `background` says of label maps whether some pixels are of no class.
    """

    texts: Sequence[str]
    task: str = "instances"
    background: bool = True

    def __post_init__(self) -> None:
        """Refuse more classes than label maps have values."""
        if self.task == "semantic" and len(self.texts) > BACKGROUND:
            raise UserError(
                f"data: {len(self.texts)} classes, but label maps hold 8 bits, of which "
                f"{BACKGROUND} are values of classes; take fewer classes"
            )


@dataclass
class DataSet(Choice):
    """What every data set can be asked for, and how its images reach the network.

    `transform` is a class of `data/resizing.py`, which says what `size`, `scale` and `crop` are to
    it. Training images are cut at a random place, and half are flipped. `resample` is how pixels
    are resized, with antialias as Pillow does; masks and label maps never are interpolated.
    `prompts` are texts by class name, for language-driven models; a class without one is told by
    its name. `negatives` says whether pictures without objects are trained on, too; they are
    evaluated in any case. Label maps are all trained on. `boxes` are learnt: those tight around
    masks as seen, or the annotated ones cut to what is seen; an object without one is not learnt.
    """

    size: list[int] = field(default_factory=lambda: [512, 512])  # height, width of the input
    transform: Transform = Transform["squash"]
    scale: list[float] = field(default_factory=lambda: [0.1, 2.0])  # of `size`, for lsj and crop
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))  # of pixels, 0..255 RGB
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))
    resample: Resample = neutral(Resample["bilinear"])
    prompts: dict[str, str] = neutral(default_factory=dict)
    negatives: Negatives = neutral(Negatives["drop"])
    boxes: Boxes = neutral(Boxes["mask"])
    crop: list[int] | None = neutral(None)  # height, width, for fit and crop
    slices: list[str] = outside(default_factory=list)  # columns of `meta` to give results by
    # objects that are boxes alone are left out: said by the model (`typed`), in no config
    needs_masks: bool = outside(True, omegaconf_ignore=True)

    task: ClassVar[str] = "instances"  # or another file of segsweep/task: what is learnt
    background: ClassVar[bool] = True  # of semantic sets: some pixels are of no class
    chosen_on = "val"  # the part by which the best epoch of a run is chosen
    pictures_of: ClassVar[str] = ""  # word of the set that shows the same pictures, if there is one
    not_hashed: ClassVar[str] = "what its class leaves out"  # of the content, by `fingerprint`

    def __post_init__(self) -> None:
        """Refuse sizes and statistics that could only fail later."""
        self._check("size", 2, low=1)
        self._check("scale", 2, low=1e-3)
        self._check("mean", 3, low=0)
        self._check("std", 3, low=1e-3)
        if self.crop is not None:
            self._check("crop", 2, low=1)
        self.transform.value.check(self.task, self.scale, self.crop)
        if self.task != DataSet.task:
            self._refuse("negatives", "has none, and all its pictures are trained on")
            self._refuse("boxes", "has none")
        for name, text in self.prompts.items():
            if not isinstance(text, str):  # OmegaConf lets lists and dicts pass
                raise UserError(f"data.prompts: {name!r} has {text!r}, must be one text")

    def _refuse(self, key: str, why: str) -> None:
        if (value := getattr(self, key)) != default_of(type(self).__dataclass_fields__[key]):
            raise UserError(
                f"data.{key}={value.name}: is for sets of instances; data={self.name} {why}"
            )

    def _check(self, key: str, length: int, low: float) -> None:
        values = getattr(self, key)
        if len(values) != length or not all(isfinite(v) and v >= low for v in values):
            raise UserError(f"data.{key}={values}: must be {length} numbers, each at least {low}")

    def classes(self) -> list[str]:
        """Return the names of the classes; the place in the list is the contiguous id."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """Return what tells each class to a language-driven model, in the order of `classes`.

        Raises UserError for a prompt of an unknown class.
        """
        from segsweep.base.explain import choices

        classes = self.classes()
        for name in self.prompts:
            if name not in classes:
                raise UserError(
                    f"data.prompts: there is no class {name!r} in data={self.name}"
                    + choices(name, classes)
                )
        return [self.prompts.get(name, name) for name in classes]

    def subject(self, classes: int | None = None) -> Subject:
        """Return what a model is built to find in these data; raises as `texts`.

        With a number of `classes` the data need not be here: names are made up, and label maps have
        background unless it is known that they have none.
        """
        if classes is None:
            return Subject(tuple(self.texts()), self.task, self.background)
        try:
            background = self.background
        except UserError:
            background = True
        return Subject(tuple(f"class {i}" for i in range(classes)), self.task, background)

    def category_ids(self) -> list[int]:
        """Return the category ids of the original files, in the order of `classes`."""
        return list(range(1, len(self.classes()) + 1))

    def records(self, split: str) -> list[Record]:
        """Return all images of `split` ("train" or "val"), crowds and empty images included."""
        raise NotImplementedError

    def splits(self) -> Sequence[str]:
        """Return the parts that can be checked: train and val, and test where a set has it."""
        return SPLITS

    def expected(self) -> int | None:
        """Return how many images one learns from if its publisher says it, without any files."""
        return None

    def survey(self, split: str) -> tuple[list[Record], list[Finding]]:
        """Return what of a split can be used, and what is wrong with it; raises for neither."""
        from segsweep.data.findings import finding

        try:
            return self.records(split), []
        except UserError as error:
            return [], [finding("set-refused", f"data={self.name}", details=[str(error)])]

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a record. (H, W, 3) uint8 RGB"""
        raise NotImplementedError

    def picture(self, record: Record) -> Path | None:
        """Return the file of a record's picture, None where pictures are no files."""
        return None

    def pictures(self) -> list[Path]:
        """Return the files of all pictures, none where pictures are no files."""
        return []

    @cached_property
    def levels(self) -> Levels | None:
        """Which values of pictures of more than 8 bits are black and white, in the whole set."""
        files = self.pictures()
        if not files:
            return None
        from segsweep.data.formats.images import common_levels

        return common_levels(files)

    def label_map(self, record: Record) -> np.ndarray:
        """Return the label map of a semantic record. (H, W) uint8: class, BACKGROUND or IGNORE"""
        raise NotImplementedError

    def prepared(self) -> bool:
        """Tell whether records need only be read, not drawn or converted first."""
        return True

    def split_facts(self) -> dict[str, Any]:
        """Return what a record says about how images came into train and val."""
        return {}

    def manifest(self) -> str:
        """Return lines of split, tab, key if the split was decided here, "" if it was given."""
        return ""

    def fingerprint(self) -> str:
        """Return a short hash of the content that can change a result, not of where it lies."""
        raise NotImplementedError


def trainable(data: DataSet) -> list[Record]:
    """Return the records of train that are learnt from: those with an instance that is no crowd.

    Those without any as well if `data.negatives` keeps them, but none of crowds alone. Of label
    maps all: that an image is background is something to learn, too.
    """
    keep = data.negatives.name == "keep"
    return [
        record
        for record in data.records("train")
        if record.labels
        or any(not a.iscrowd for a in record.annotations)
        or (keep and record.negative)
    ]

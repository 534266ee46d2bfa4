"""ATSS (Zhang 2020, arXiv:1912.02424): boxes of objects, without queries and without masks.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import outside, within
from segsweep.model.family import multiple
from segsweep.model.pyramid import HEAD, Pyramid

if TYPE_CHECKING:
    from segsweep.data.base import Subject
    from segsweep.loss.base import BaseCriterion
    from segsweep.model.heads.pyramid import PyramidHead
    from segsweep.model.necks.base import Neck


@dataclass
class ATSS(Pyramid):
    """The model family; the defaults are those of mmdet.

    An object is learnt by the best of the `topk` nearest anchors of each level. What is read off
    an image: `nms_pre` anchors of each level above `score_threshold`, of those of a class that
    overlap by more than `nms` the best one, `max_per_image` in all.
    """

    architecture: ClassVar[str] = "ATSS"
    prefix: ClassVar[str] = "bbox_head."
    sign: ClassVar[str] = "atss_centerness.weight"
    tasks: ClassVar[tuple[str, ...]] = ("instances",)
    masks: ClassVar[bool] = False
    class_tensors: ClassVar[tuple[str, ...]] = (f"{HEAD}atss_cls.weight", f"{HEAD}atss_cls.bias")

    input: list[int] = outside(default_factory=lambda: [1024, 1024], least=1)
    channels: int = within(256, least=1)
    convs: int = within(4, least=1)  # of each tower
    groups: int = within(32, least=1)  # of its norms
    topk: int = within(9, least=1)
    score_threshold: float = within(0.05, below=1)
    nms: float = within(0.6, above=0)
    nms_pre: int = within(1000, least=1)
    max_per_image: int = within(100, least=1)

    def __post_init__(self) -> None:
        """Refuse a width that its norms cannot part."""
        multiple("model.channels", self.channels, {"model.groups": self.groups})

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the key that says it."""
        return {"model.max_per_image": self.max_per_image}

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        """Return the neck for maps at strides 4 to 32, or for one map; both give 8 to 128."""
        if pyramid:
            return "fpn", {"start": 1, "extra": "conv"}
        return "sfp", {"scales": [2, 1, 0.5, 0.25], "top": "pool"}

    def head(self, neck: Neck, subject: Subject) -> PyramidHead:
        """Build what stands behind the backbone, drawn by torch's global generator."""
        from segsweep.model.heads.atss import ATSSHead, BoxReader

        self.check_widths(neck)
        reader = BoxReader(self.score_threshold, self.nms, self.nms_pre, self.max_per_image)
        sizes = self.channels, self.convs, self.groups
        return ATSSHead(neck, len(subject.texts), *sizes, reader)

    def criterion(self, neck: Neck, subject: Subject) -> BaseCriterion:
        """Build the loss."""
        from segsweep.loss.atss import ATSSCriterion

        return ATSSCriterion(len(subject.texts), neck.strides, self.topk)

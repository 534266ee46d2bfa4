"""SOLO (Wang 2020, arXiv:1912.04488): its dimensions, and how its parts are put together.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import outside, within
from segsweep.base.errors import UserError
from segsweep.model.family import multiple
from segsweep.model.pyramid import HEAD, Pyramid

if TYPE_CHECKING:
    from segsweep.data.base import Subject
    from segsweep.loss.base import BaseCriterion
    from segsweep.model.heads.pyramid import PyramidHead
    from segsweep.model.necks.base import Neck

NMSKernel = Enum("NMSKernel", {"gaussian": "gaussian", "linear": "linear"})
LEAST_LEVELS = 3  # the first is halved, the last doubled
GRIDS = [40, 36, 24, 16, 12]
SCALE_RANGES = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]


@dataclass
class SOLO(Pyramid):
    """The model family; the defaults are mmdet's SOLO with 7 convolutions a branch.

    Of each level of the neck, `grids` are the cells in a row, `scale_ranges` the least and the
    largest object: sqrt(width * height) in pixels of the input. Cells answer for an object in the
    part `pos_scale` of its box. See heads/cell_instances.py for what is found.
    """

    architecture: ClassVar[str] = "SOLO"
    prefix: ClassVar[str] = "mask_head."
    sign: ClassVar[str] = "conv_mask_list.0.weight"
    tasks: ClassVar[tuple[str, ...]] = ("instances",)
    class_tensors: ClassVar[tuple[str, ...]] = (f"{HEAD}conv_cls.weight", f"{HEAD}conv_cls.bias")

    input: list[int] = outside(default_factory=lambda: [1024, 1024], least=1)
    convs: int = within(7, least=1)  # of each branch
    channels: int = within(256, least=1)
    groups: int = within(32, least=1)  # of every norm of the head
    grids: list[int] = within(default_factory=lambda: list(GRIDS), least=1)
    scale_ranges: list[list[int]] = field(
        default_factory=lambda: [list(pair) for pair in SCALE_RANGES]
    )
    pos_scale: float = within(0.2, above=0)
    mask_weight: float = 3.0  # of dice in the loss
    score_threshold: float = within(0.1, below=1)
    mask_threshold: float = within(0.5, below=1)
    nms_pre: int = within(500, least=1)  # candidates that Matrix NMS compares
    nms_threshold: float = within(0.05, below=1)  # score that remains after it
    nms_kernel: NMSKernel = NMSKernel["gaussian"]
    nms_sigma: float = within(2.0, above=0)
    max_per_image: int = within(100, least=1)

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit each other."""
        multiple("model.channels", self.channels, {"model.groups": self.groups})
        ranges = f"model.scale_ranges={self.scale_ranges}"
        if not all(map(_is_range, self.scale_ranges)):
            raise UserError(f"{ranges}: each must be the least and the largest size of objects")
        if len(self.grids) != len(self.scale_ranges):
            raise UserError(
                f"model.grids={self.grids} are {len(self.grids)} levels, {ranges} "
                f"{len(self.scale_ranges)}; give one grid and one range for each level of the neck"
            )
        self._refuse_levels(self.level_count())

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the keys that say it."""
        return {"model.max_per_image": self.max_per_image}

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        """Return the neck for maps at strides 4 to 32, or for one map; both give 4 to 64."""
        if pyramid:
            return "fpn", {"start": 0, "outputs": 5, "extra": "pool"}
        return "sfp", {"scales": [4, 2, 1, 0.5], "top": "pool"}

    def head(self, neck: Neck, subject: Subject) -> PyramidHead:
        """Build what stands behind the backbone, drawn by torch's global generator."""
        from segsweep.model.heads.cell_instances import CellReader
        from segsweep.model.heads.matrix_nms import MatrixNMS
        from segsweep.model.heads.solo import SOLOHead

        self._refuse_levels(len(neck.strides))
        self.check_widths(neck)
        rules = self.nms_kernel.name, self.nms_sigma, self.nms_pre, self.nms_threshold
        nms = MatrixNMS(*rules, self.max_per_image)
        reader = CellReader(self.score_threshold, self.mask_threshold, nms)
        sizes = self.grids, self.channels, self.convs, self.groups
        return SOLOHead(neck, len(subject.texts), *sizes, reader)

    def level_count(self) -> int | None:
        """Return how many levels the neck gives, if its words say it."""
        _, kwargs = self.chosen_neck()
        if "scales" in kwargs:
            return len(kwargs["scales"]) + (kwargs.get("top") != "none")
        return kwargs.get("outputs")

    def _refuse_levels(self, count: int | None) -> None:
        """Refuse a neck of other levels than the head has grids for."""
        if count is not None and (count != len(self.grids) or count < LEAST_LEVELS):
            raise UserError(
                f"model.grids={self.grids} are {len(self.grids)} levels, the neck gives {count}; "
                f"give each of its levels, {LEAST_LEVELS} or more, a grid and a range of "
                "model.scale_ranges, or choose other levels by model.neck.kwargs"
            )

    def criterion(self, neck: Neck, subject: Subject) -> BaseCriterion:
        """Build the loss."""
        from segsweep.loss.solo import SOLOCriterion, strides_of

        return SOLOCriterion(
            strides_of(neck.strides), self.scale_ranges, self.pos_scale, self.mask_weight
        )


def _is_range(pair: Any) -> bool:
    """Say whether it is the least and the largest size of objects."""
    return isinstance(pair, list) and len(pair) == 2 and 0 <= pair[0] <= pair[1]

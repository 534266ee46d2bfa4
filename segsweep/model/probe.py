"""Linear probing: the class of a picture, by a linear classifier upon what a backbone gives.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import outside
from segsweep.base.errors import UserError
from segsweep.model.pyramid import HEAD, Pyramid

if TYPE_CHECKING:
    from segsweep.data.base import Subject
    from segsweep.loss.labels import LabelCriterion
    from segsweep.model.backbones.base import Backbone
    from segsweep.model.heads.probe import ProbeHead
    from segsweep.model.necks.base import Neck

Pool = Enum("Pool", {"cls": "cls", "avg": "avg", "avg_neck": "avg_neck"})


@dataclass
class Probe(Pyramid):
    """The model family: pooled vector -> batch norm without weights -> linear layer.

    What is pooled is not told by the studies that report linear probing of SAM: a number of this
    family names `pool`, size of the input and optimizer, and reproduces none of theirs. `cls` is
    the class token behind the final norm, `avg` the mean of the last tokens or of the last map,
    `avg_neck` that of the map behind the backbone's own neck, as SAM has one.
    """

    architecture: ClassVar[str] = "Linear probe"
    tasks: ClassVar[tuple[str, ...]] = ("label",)
    scopes: ClassVar[tuple[str, ...]] = ("backbone", "head")
    class_tensors: ClassVar[tuple[str, ...]] = (f"{HEAD}fc.weight", f"{HEAD}fc.bias")
    shown: ClassVar[dict[str, str]] = {"pool": "{}"}

    input: list[int] = outside(default_factory=lambda: [224, 224], least=1)
    pool: Pool = Pool["avg"]

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        """Return that there is no neck."""
        return "none", {}

    def build_backbone(self) -> Backbone:
        """Build the backbone, to give what is pooled.

        Raises UserError where it has no class token, or no neck of its own.
        """
        backbone = super().build_backbone()
        if self.pool is Pool["cls"]:
            backbone.give_class_token()
        elif self.pool is Pool["avg"]:
            backbone.leave_neck()
        elif not hasattr(backbone, "neck"):
            raise UserError(
                f"model.pool=avg_neck: model.backbone.name={self.backbone.name} has no neck of its "
                "own; choose model.pool=avg"
            )
        return backbone

    def head(self, neck: Neck, subject: Subject) -> ProbeHead:
        """Build the head; see `Pyramid.head`."""
        from segsweep.model.heads.probe import ProbeHead

        return ProbeHead(neck, len(subject.texts))

    def criterion(self, neck: Neck, subject: Subject) -> LabelCriterion:
        """Build the loss."""
        from segsweep.loss.labels import LabelCriterion

        return LabelCriterion()

"""SegFormer's decode head (Xie 2021, arXiv:2105.15203) upon the levels of any backbone.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.model.pyramid import HEAD, Pyramid

if TYPE_CHECKING:
    from segsweep.data.base import Subject
    from segsweep.loss.pixels import PixelCriterion
    from segsweep.model.backbones.base import Backbone
    from segsweep.model.family import State
    from segsweep.model.heads.segformer import SegFormerHead
    from segsweep.model.necks.base import Neck

HeadForm = Enum("HeadForm", {"mmseg": "mmseg", "nvidia": "nvidia"})
Average = Enum("Average", {"all": "all", "known": "known"})

FUSING = {HeadForm["mmseg"]: "fusion_conv.", HeadForm["nvidia"]: "linear_fuse."}


@dataclass
class SegFormer(Pyramid):
    """The model family; the defaults are those of mmseg with a head of 256 channels.

    `form` is that of mmseg, or of NVlabs/SegFormer, which has other layers and names. The loss is
    the mean over `all` pixels, unknown and padded ones too, as in both programs, or over the
    `known` ones. Where some pixels are of no class, the background is learnt as one class more.
    """

    architecture: ClassVar[str] = "SegFormer"
    prefix: ClassVar[str] = "decode_head."
    tasks: ClassVar[tuple[str, ...]] = ("semantic",)
    class_tensors: ClassVar[tuple[str, ...]] = (  # of both forms
        *(f"{HEAD}conv_seg.weight", f"{HEAD}conv_seg.bias"),
        *(f"{HEAD}linear_pred.weight", f"{HEAD}linear_pred.bias"),
    )

    form: HeadForm = HeadForm["mmseg"]
    channels: int = within(256, least=1)
    dropout: float = within(0.1, below=1)  # of whole channels
    average: Average = Average["all"]

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        """Return the neck for maps at STRIDES, which are read as they are, or for one map."""
        return ("none", {}) if pyramid else ("sfp", {"scales": [4, 2, 1, 0.5], "top": "none"})

    def head(self, neck: Neck, subject: Subject) -> SegFormerHead:
        """Build the head; see `Pyramid.head`."""
        from segsweep.model.heads.segformer import MMSegForm, NVlabsForm

        head = MMSegForm if self.form is HeadForm["mmseg"] else NVlabsForm
        classes = class_count(subject)
        return head(neck, subject.background, self.channels, classes, self.dropout)

    def criterion(self, neck: Neck, subject: Subject) -> PixelCriterion:
        """Build the loss."""
        from segsweep.loss.pixels import PixelCriterion

        background = class_count(subject) - 1 if subject.background else None
        return PixelCriterion(background, known=self.average is Average["known"])

    def named(self, state: State, backbone: Backbone) -> State:
        """Give what a file holds our names; see `Pyramid.named` and `fitting`."""
        return self.fitting(super().named(state, backbone))

    def fitting(self, state: State) -> State:
        """Return weights under our names; raises UserError for a head of the other form."""
        for form, layer in FUSING.items():
            if form is not self.form and any(name.startswith(HEAD + layer) for name in state):
                raise UserError(
                    f"model.weights={self.weights} has a head with other layers than that of "
                    f"model.form={self.form.name} has; choose model.form={form.name}"
                )
        return state


def class_count(subject: Subject) -> int:
    """Count the classes; the background, where it is one, is the last."""
    return len(subject.texts) + subject.background

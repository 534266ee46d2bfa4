"""SAM (Kirillov 2023, arXiv:2304.02643) without prompts: dimensions, assembly, weights, roles.

The reduced form of Conv-LoRA (Zhong 2024, arXiv:2401.17868): one mask token for one foreground, a
few with classes for label maps. Composing a config imports this file, so torch is imported by the
functions that need it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import outside, within
from segsweep.base.errors import UserError
from segsweep.model.family import BLOCK_ROLES, BackboneConfig, Family, multiple
from segsweep.model.sam_names import DECODER, HEAD, from_official, to_official

if TYPE_CHECKING:
    from segsweep.data.base import DataSet, Subject
    from segsweep.loss.base import BaseCriterion
    from segsweep.model.family import Roles, State
    from segsweep.model.heads.sam import SAMHead
    from segsweep.model.segmenter import Segmenter
    from segsweep.model.whole_sam import WholeSAM

Loss = Enum("Loss", {"structure": "structure", "balanced_bce": "balanced_bce"})
Form = Enum("Form", {"as_released": "as_released", "as_published": "as_published"})
NormEps = Enum("NormEps", {"transformers": 1e-6, "official": 1e-5})  # of the decoder's layers

TOKENS = f"{HEAD}{DECODER}mask_tokens.weight"
CLASSIFIER = f"{HEAD}{DECODER}output_classifier_mlps"
OTHER_NETWORKS = f"{HEAD}{DECODER}output_hypernetworks_mlps.[123].*"


@dataclass
class SAM(Family):
    """The model family; the defaults are SAM-B as the published code of Conv-LoRA builds it.

    One foreground is the first mask; of several classes, background among them, each of
    `mask_tokens` masks is told one. `loss` in its `form` is that of one foreground, `points` and
    `no_object` belong to that of several classes. `norm_eps` is that of the decoder's layers:
    1e-6 in transformers, 1e-5 in segment_anything.
    """

    architecture: ClassVar[str] = "SAM"
    sign: ClassVar[str] = f"{DECODER}iou_token.weight"
    tasks: ClassVar[tuple[str, ...]] = ("semantic",)
    layouts: ClassVar[tuple[str, ...]] = ("sam",)
    class_tensors: ClassVar[tuple[str, ...]] = (f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias")
    spare: ClassVar[tuple[str, ...]] = (OTHER_NETWORKS,)

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig("samvit_base_patch16", "sam")
    )
    input: list[int] = outside(default_factory=lambda: [1024, 1024], least=1)
    mask_channels: int = within(16, least=4)  # of the prompt encoder
    decoder_layers: int = within(2, least=1)
    decoder_heads: int = within(8, least=1)
    decoder_ffn: int = within(2048, least=1)
    quality_hidden: int = within(256, least=1)  # of the head that rates masks
    norm_eps: NormEps = NormEps["transformers"]
    mask_tokens: int = within(1, least=1)  # of several classes
    loss: Loss = Loss["structure"]
    form: Form = Form["as_released"]
    points: int = within(12544, least=1)
    no_object: float = within(0.1, above=0)
    clip: float = outside(1.0)

    def __post_init__(self) -> None:
        """Refuse a backbone that has other maps, or weights of other names."""
        if self.backbone.layout not in self.layouts:
            raise UserError(
                f"model.backbone.layout={self.backbone.layout}: model={self.name} reads the map of "
                "SAM's image encoder; leave out model.backbone.layout, or choose sam"
            )

    @property
    def roles(self) -> Roles:
        """Patterns of the weights and seams that a method may name by one word."""
        return ROLES

    def advice(self, data: DataSet) -> str:
        """Say what `Family.advice` says, and that there are fewer masks than classes."""
        said, classes = super().advice(data), class_count(data.subject())
        if 1 < self.mask_tokens + 1 <= classes:
            few = (
                f"model.mask_tokens={self.mask_tokens}: at most so many of the {classes} classes "
                f"can be found on one image; more: model.mask_tokens={classes}"
            )
            return f"{said}; {few}" if said else few
        return said

    def build(self, subject: Subject) -> Segmenter:
        """Build the reduced model with random weights; only the number of classes matters."""
        from segsweep.model.segmenter import Segmenter

        backbone = self.backbone.build()
        classes = class_count(subject)
        background = classes > len(subject.texts)
        tokens = self.mask_tokens if classes > 1 else 1
        head = self.head(backbone.channels[-1], tokens, classes, background)
        criterion = self.criterion(classes, background)
        return Segmenter(backbone, head, criterion, drop_path=self.backbone.drop_path > 0)

    def head(
        self, channels: int, tokens: int, classes: int = 1, background: bool = False
    ) -> SAMHead:
        """Build what stands behind an image embedding of so many channels, reduced."""
        return self._head(channels, background, tokens=tokens, shared=True, classes=classes)

    def whole(self) -> WholeSAM:
        """Build the model as it was published, with all its mask tokens, for prompts."""
        from segsweep.model.whole_sam import WholeSAM

        backbone = self.backbone.build()
        return WholeSAM(backbone, self._head(backbone.channels[-1]))

    def _head(self, channels: int, background: bool = False, **form: Any) -> SAMHead:
        from segsweep.model.heads.sam import SAMHead
        from segsweep.model.heads.sam_decoder import MaskDecoder
        from segsweep.model.heads.sam_prompts import PromptEncoder

        parts = {"twice model.decoder_heads": 2 * self.decoder_heads}
        multiple("the width of the image embedding", channels, parts)
        decoder = MaskDecoder(
            channels,
            self.decoder_layers,
            self.decoder_heads,
            self.decoder_ffn,
            self.quality_hidden,
            self.norm_eps.value,
            **form,
        )
        return SAMHead(PromptEncoder(channels, self.mask_channels), decoder, background)

    def criterion(self, classes: int, background: bool) -> BaseCriterion:
        """Build the loss of one foreground, or of several classes."""
        from segsweep.loss.foreground import BalancedBCE, StructureLoss
        from segsweep.loss.regions import RegionCriterion

        if classes > 1:
            return RegionCriterion(classes, background, self.points, self.no_object)
        if self.loss is Loss["balanced_bce"]:
            return BalancedBCE()
        return StructureLoss(as_published=self.form is Form["as_published"])

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw `class_tensors` anew."""
        import torch

        layer, draws = model.get_submodule(CLASSIFIER), torch.Generator().manual_seed(seed)
        for parameter in layer.parameters():  # as torch draws a linear layer
            bound = layer.get_parameter("weight").shape[1] ** -0.5
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=draws)

    def ours(self, state: State) -> State:
        """Give the weights of segment_anything or transformers our names."""
        return from_official(state)

    def fitted(self, state: State, model: Segmenter) -> State:
        """Give every mask token the first one of a whole SAM; refuse parts, and other sizes."""
        self._refuse_parts(state)
        entries = model.state_dict()
        there, here = (sizes(weights) for weights in (state, entries))
        if there != here:
            raise UserError(
                f"model.weights={self.weights} is a SAM of {there}, model={self.name} one of "
                f"{here}; choose weights of this size, or the model of that one"
            )
        tokens = state[TOKENS]
        if is_whole(state) or len(tokens) == 1:
            tokens = tokens[:1].repeat(len(entries[TOKENS]), 1)
        return {**state, TOKENS: tokens}

    def _refuse_parts(self, state: State) -> None:
        """Refuse a file that is no SAM, or a part of one."""
        encoder = any(name.endswith("attn.rel_pos_h") for name in state)
        decoder = any(name.endswith(self.sign) for name in state)
        if encoder and decoder:
            return
        part = "the image encoder" if encoder else "the mask decoder"
        held = f"{part} of a SAM alone" if encoder or decoder else "no SAM"
        raise UserError(
            f"model.weights={self.weights} holds {held} ({', '.join(list(state)[:2])}, ...); "
            f"model={self.name} needs a whole one: of segment_anything, of transformers, or "
            "merged by segsweep"
        )

    def official(self, model: Segmenter) -> State:
        """Return the state dict of a model under the names of segment_anything.

        That of one foreground is a whole SAM where the base weights are: of all but the first mask
        token and its network, it holds those of the base.
        """
        import torch

        state = model.state_dict()
        base = {} if len(state[TOKENS]) > 1 or is_told_classes(state) else self._base()
        if is_whole(base):
            others = base.pop(TOKENS)[1:].to(state[TOKENS])
            networks = {n: t for n, t in base.items() if fnmatchcase(n, OTHER_NETWORKS)}
            state |= {TOKENS: torch.cat([state[TOKENS], others]), **networks}
        return to_official(state)

    def _base(self) -> State:
        """Return the base weights under our names, none where they are random."""
        from segsweep.model.files import locate
        from segsweep.model.weights import read

        return {} if self.weights is None else self.ours(read(locate(self.weights))[0])

    def caveats(self, state: State) -> list[str]:
        """Say what segment_anything does not know, or computes otherwise."""
        ours = self.ours(state)
        if is_told_classes(ours):
            return [
                "  mask tokens share one network and are told classes, which segment_anything "
                "cannot load"
            ]
        if is_whole(ours):
            return [
                "  the other mask tokens are those of the base: segment_anything decodes all "
                "together, so that its first mask differs from that of the run, which has one token"
            ]
        return ["  it has one mask token, so segment_anything, which has four, cannot load it"]


def class_count(subject: Subject) -> int:
    """Count the classes: one foreground is alone, several have the background beside them."""
    classes = len(subject.texts)
    return classes + 1 if classes > 1 and subject.background else classes


def is_whole(state: State) -> bool:
    """Say whether weights under our names have a network for more than one mask token."""
    return any(fnmatchcase(name, OTHER_NETWORKS) for name in state)


def is_told_classes(state: State) -> bool:
    """Say whether weights under our names have a class head."""
    return f"{CLASSIFIER}.bias" in state


def sizes(state: State) -> str:
    """Say the sizes of a model in words."""
    blocks = {name for name in state if re.fullmatch(r"backbone\.blocks\.\d+\.norm1\.bias", name)}
    rows, columns, channels = state["backbone.pos_embed"].shape[1:]
    return f"{len(blocks)} blocks of {channels} channels on {rows} x {columns} cells"


TRAINED = [  # what every method trains: neither the prompt encoder nor the head that rates masks
    f"{HEAD}{DECODER}{part}.*" for part in ("transformer", "iou_token", "mask_tokens", "output_*")
]
ROLES = {
    "head": TRAINED,
    "decoder": TRAINED,
    "embeddings": TRAINED,
    "backbone": ["backbone.*"],
    "neck": ["backbone.neck.*"],
    "deformable": [],
    "biases": ["backbone.*.bias"],
    **BLOCK_ROLES,
}

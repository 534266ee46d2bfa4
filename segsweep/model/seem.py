"""SEEM (Zou 2023, arXiv:2304.06718) on object queries: dimensions, assembly, official names.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import outside, within
from segsweep.model.backbones.swin_names import MERGING
from segsweep.model.family import BackboneConfig, Family, multiple, renamed
from segsweep.model.heads.prompts import Templates, templates, token_ids
from segsweep.model.layers.norms import GROUPS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segsweep.data.base import Subject
    from segsweep.model.family import Roles, State
    from segsweep.model.heads.query import QueryHead, Reader
    from segsweep.model.segmenter import Segmenter

TextEncoder = Enum("TextEncoder", {"frozen": "frozen", "trained": "trained"})


@dataclass
class SEEMWeights:
    """Weights of the three loss terms, and costs of the matcher."""

    ce: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


@dataclass
class Text:
    """Dimensions of the text transformer; the defaults are those of CLIP."""

    vocab: int = within(49408, least=49408)  # ids of the tokenizer
    context: int = within(77, least=1)  # tokens
    width: int = within(512, least=1)
    heads: int = within(8, least=1)
    layers: int = within(12, least=1)

    def __post_init__(self) -> None:
        """Refuse a width that the heads cannot share."""
        multiple("model.text.width", self.width, {"model.text.heads": self.heads})


@dataclass
class SEEM(Family):
    """The model family; the defaults are the released Focal-L model (v1).

    Classes are told by `data.prompts` or their names, each in all `templates`, or in
    `own_templates` instead. `text_encoder` says whether the roles "head" and "decoder" mean the
    text encoder too, as they do in the published counts; other methods never train it.
    """

    architecture: ClassVar[str] = "SEEM"
    scopes: ClassVar[tuple[str, ...]] = ("backbone", "encoder", "decoder", "head")
    sign: ClassVar[str] = "sem_seg_head.predictor.lang_encoder.logit_scale"
    language: ClassVar[bool] = True
    pyramid: ClassVar[bool] = True
    layouts: ClassVar[tuple[str, ...]] = ("focal", "focal_dw")

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(
            "focalnet_large_fl4", "focal", {"normalize_modulator": True}
        )
    )
    hidden: int = within(512, least=1)
    conv_dim: int | None = within(None, least=1)  # channels of the pixel decoder; null = hidden
    mask_dim: int = within(512, least=1)
    proj: int = within(512, least=1)  # channels in which queries and texts are compared
    queries: int = within(101, least=1)
    encoder_layers: int = within(6, least=1)
    encoder_heads: int = within(8, least=1)
    encoder_ffn: int = within(2048, least=1)
    decoder_layers: int = within(9, least=1)
    decoder_heads: int = within(8, least=1)
    decoder_ffn: int = within(2048, least=1)
    points: int = within(12544, least=1)
    no_object: float = within(0.1, above=0)  # weight of "no object" in the class loss
    loss: SEEMWeights = field(default_factory=SEEMWeights)
    topk: int = within(100, least=1)
    templates: Templates = Templates["all81"]
    own_templates: list[str] | None = None  # sentences with {}
    text: Text = field(default_factory=Text)
    text_encoder: TextEncoder = TextEncoder["frozen"]
    clip: float = outside(5.0)

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit each other."""
        multiple("model.hidden", self.hidden, {"model.decoder_heads": self.decoder_heads})
        key = "model.hidden" if self.conv_dim is None else "model.conv_dim"
        parts = {"model.encoder_heads": self.encoder_heads, "the groups of GroupNorm": GROUPS}
        multiple(key, self.conv_dim or self.hidden, parts)
        if self.own_templates is not None:
            templates(self.templates, self.own_templates)

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the keys that say it."""
        return {"model.queries": self.queries, "model.topk": self.topk}

    @property
    def roles(self) -> Roles:
        """Patterns of the weights and seams that a method may name by one word."""
        projected = [] if self.conv_dim in (None, self.hidden) else [f"{PREDICTOR}input_proj.*"]
        attention = [
            "sem_seg_head.pixel_decoder.*.in_proj_weight",
            "sem_seg_head.predictor.transformer_*.in_proj_weight",
        ]
        text = TEXT if self.text_encoder is TextEncoder["trained"] else []
        decoder = [*DECODER, *projected, *text]
        return {
            "head": ["sem_seg_head.pixel_decoder.*", *decoder],
            "encoder": ["sem_seg_head.pixel_decoder.transformer.*"],
            "decoder": decoder,
            "embeddings": EMBEDDINGS,
            "deformable": [],
            "attention": attention,
            "keys": [f"{pattern}:k" for pattern in attention],
            "values": [f"{pattern}:v" for pattern in attention],
            "feedforward": [
                "sem_seg_head.pixel_decoder.*.linear2.weight",
                "sem_seg_head.predictor.transformer_*.linear2.weight",
            ],
            "ffn": [f"{layers}.linear[12].weight" for layers in LAYERS],
            "linears": [
                f"{layers}.{part}"
                for layers in LAYERS
                for part in ("*proj*weight", "linear[12].weight")
            ],
            "norms": [*(f"{layers}.norm*" for layers in LAYERS), f"{PREDICTOR}decoder_norm.*"],
            "patches": [],
            "seams": ["sem_seg_head.*.after_self_attn", "sem_seg_head.*.after_cross_attn"],
            "text": TEXT,
            "backbone": ["backbone.*"],
            "biases": ["backbone.*.bias"],
        }

    @property
    def readings(self) -> dict[str, Family]:
        """The model with its text encoder trained and frozen, as chosen first."""
        chosen = sorted(TextEncoder, key=lambda word: word is not self.text_encoder)
        return {f"text encoder {w.name}": replace(self, text_encoder=w) for w in chosen}

    def build(self, subject: Subject) -> Segmenter:
        """Build the model with random weights for classes told by these texts, in id order.

        Raises:
            UserError: a text or a template cannot be used, or the backbone cannot be built.
        """
        from segsweep.loss.seem import SEEMCriterion
        from segsweep.model.heads.query import reader
        from segsweep.model.segmenter import Segmenter

        texts, sentences = subject.texts, templates(self.templates, self.own_templates)
        ids = token_ids(texts, sentences, self.text.context)
        backbone = self.backbone.build()
        criterion = SEEMCriterion(len(texts), vars(self.loss), self.points, self.no_object)
        read = reader(subject, criterion.classify, self.topk, resize="bicubic")
        head = self.head(backbone.channels, *ids, read)
        return Segmenter(backbone, head, criterion, drop_path=self.backbone.drop_path > 0)

    def head(
        self,
        channels: list[int],
        train_ids: Tensor,
        eval_ids: Tensor,
        reader: Reader | None = None,
    ) -> QueryHead:
        """Build what stands behind a backbone with maps of these channels.

        `train_ids` and `eval_ids` are the texts of the K classes and of the background in T
        templates, (K+1, T, L) int64.
        """
        from segsweep.model.heads.language import LanguageEncoder
        from segsweep.model.heads.masked_decoder import MaskedPredictor
        from segsweep.model.heads.query import QueryHead
        from segsweep.model.necks.fpn_decoder import FPNDecoder

        conv_dim = self.conv_dim or self.hidden
        pixel_decoder = FPNDecoder(
            channels,
            conv_dim,
            self.encoder_heads,
            self.encoder_ffn,
            self.encoder_layers,
            self.mask_dim,
        )
        predictor = MaskedPredictor(
            LanguageEncoder(train_ids, eval_ids, **vars(self.text), proj=self.proj),
            self.hidden,
            self.decoder_heads,
            self.decoder_ffn,
            self.decoder_layers,
            self.queries,
            self.mask_dim,
            self.proj,
            conv_dim,
        )
        return QueryHead(pixel_decoder, predictor, reader)

    def ours(self, state: State) -> State:
        """Give official weights our names and shapes, see `from_official`."""
        return from_official(state)

    def official(self, model: Segmenter) -> State:
        """Return the whole state dict of a model under its official names."""
        return to_official(model)


PREDICTOR = "sem_seg_head.predictor."
EMBEDDINGS = [f"{PREDICTOR}class_embed", f"{PREDICTOR}mask_embed.*"]
DECODER = [
    *EMBEDDINGS,
    *(f"{PREDICTOR}{part}" for part in ("transformer_*", "query_*", "level_embed.*")),
    f"{PREDICTOR}decoder_norm.*",
]
LAYERS = ("sem_seg_head.pixel_decoder.*.layers.*", f"{PREDICTOR}transformer_*")
TEXT = [f"{PREDICTOR}lang_encoder.*"]

# parts of official names and of ours behind "backbone.", see `renamed`
RENAMED = [
    ("patch_embed.", "stem."),
    *MERGING,
    *((f".gamma_{i}", f".ls{i}.gamma") for i in (1, 2)),
    *((f".norm{i}.", f".norm{i}_post.") for i in (1, 2)),  # of blocks
]
BACKBONE = "backbone."
OFFICIAL = "backbone.patch_embed."  # never a name of ours
POINTWISE = re.compile(r"backbone\..*\.(modulation\.(f|proj)|mlp\.fc\d)\.weight")  # ours: 1x1 conv
PROMPTS = {  # of clicks, scribbles and reference regions, which have no part here
    *(f"{PREDICTOR}mask_sptial_embed.{i}" for i in (0, 1, 2)),
    *(f"{PREDICTOR}{name}.weight" for name in ("spatial_embed", "spatial_featured")),
    f"{PREDICTOR}pn_indicator.weight",
}
CONSTANTS = {"dilation_kernel", "criterion.empty_weight"}  # known without the file


def from_official(state: State) -> State:
    """Give official weights our names and shapes; weights under our names pass."""
    if not any(name.startswith(OFFICIAL) for name in state):
        return state
    ours, left_out = {}, PROMPTS | CONSTANTS
    for name, tensor in state.items():
        if name in left_out:
            continue
        if POINTWISE.fullmatch(name):
            tensor = tensor[..., None, None]
        ours[_renamed(name)] = tensor
    return ours


def to_official(model: nn.Module) -> State:
    """Return the whole state dict of a model of this family under its official names."""
    import torch

    weights = model.get_buffer("criterion.empty_weight")
    official = {"dilation_kernel": torch.ones(1, 1, 3, 3), "criterion.empty_weight": weights}
    for name, tensor in model.state_dict().items():
        name = _renamed(name, back=True)
        official[name] = tensor.flatten(1) if POINTWISE.fullmatch(name) else tensor
    return official


def _renamed(name: str, back: bool = False) -> str:
    prefix, rest = name[: len(BACKBONE)], name[len(BACKBONE) :]
    return prefix + renamed(rest, RENAMED, back) if prefix == BACKBONE else name

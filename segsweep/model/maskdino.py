"""Mask DINO (Li 2023): its dimensions, how its parts are put together, and its official names.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.model.backbones import STRIDES
from segsweep.model.backbones.swin_names import INDEX, MERGING
from segsweep.model.family import MAPS, Family, multiple, renamed
from segsweep.model.layers.norms import GROUPS

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.data.base import DataSet, Subject
    from segsweep.model.family import Roles, State
    from segsweep.model.heads.query import QueryHead, Reader
    from segsweep.model.segmenter import Segmenter

FeatureOrder = Enum("FeatureOrder", {"low2high": "low2high", "high2low": "high2low"})
BoxInit = Enum("BoxInit", {"mask2box": "mask2box", "bitmask": "bitmask", "no": "no"})


@dataclass
class MaskDINOWeights:
    """Weights of the five loss terms, and costs of the matcher."""

    ce: float = 4.0
    mask: float = 5.0
    dice: float = 5.0
    bbox: float = 5.0
    giou: float = 2.0


@dataclass
class MaskDINO(Family):
    """The model family; the defaults are the official ResNet-50 COCO instance model."""

    architecture: ClassVar[str] = "Mask DINO"
    scopes: ClassVar[tuple[str, ...]] = ("backbone", "encoder", "decoder", "head")
    sign: ClassVar[str] = "sem_seg_head.predictor.label_enc.weight"
    envelope: ClassVar[str] = "model"
    pyramid: ClassVar[bool] = True
    layouts: ClassVar[tuple[str, ...]] = ("resnet", "swin")
    class_tensors: ClassVar[tuple[str, ...]] = (
        "sem_seg_head.predictor.class_embed.weight",
        "sem_seg_head.predictor.class_embed.bias",
        "sem_seg_head.predictor.label_enc.weight",
        "criterion.empty_weight",
    )

    hidden: int = within(256, least=1)
    mask_dim: int = within(256, least=1)
    queries: int = within(300, least=1)
    encoder_layers: int = within(6, least=1)
    encoder_heads: int = within(8, least=1)
    encoder_ffn: int = within(2048, least=1)
    decoder_layers: int = within(9, least=1)
    decoder_heads: int = within(8, least=1)
    decoder_ffn: int = within(2048, least=1)
    levels: list[str] = field(default_factory=lambda: MAPS[1:])  # maps that the encoder sees
    extra_levels: int = 1  # coarser ones made from the coarsest
    feature_order: FeatureOrder = FeatureOrder["low2high"]  # low2high = fine maps first
    box_init: BoxInit = BoxInit["mask2box"]  # first anchors: boxes of masks, or as predicted
    dn_number: int = 100
    dn_noise: float = 0.4
    points: int = within(12544, least=1)
    loss: MaskDINOWeights = field(default_factory=MaskDINOWeights)
    topk: int = within(100, least=1)
    focus_on_box: bool = False

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit each other."""
        if not self.levels or set(self.levels) - set(MAPS):
            raise UserError(f"model.levels={self.levels}: choose one or more of {', '.join(MAPS)}")
        heads = {f"model.{k}_heads": getattr(self, f"{k}_heads") for k in ("encoder", "decoder")}
        multiple("model.hidden", self.hidden, {**heads, "the groups of GroupNorm": GROUPS})

    def check(self, data: DataSet) -> None:
        """Raise UserError as for any family, and for images of fewer tokens than queries."""
        super().check(data)
        sides = [-(-side // STRIDES[-1]) * STRIDES[-1] for side in data.size]  # as padded
        strides = [STRIDES[MAPS.index(level)] for level in self.levels]
        strides += [max(strides) << (i + 1) for i in range(self.extra_levels)]
        tokens = sum(math.prod(-(-side // stride) for side in sides) for stride in strides)
        if self.queries > tokens:
            raise UserError(
                f"model.queries={self.queries}: images of data.size={data.size} have {tokens} "
                "tokens, fewer than queries; choose fewer queries or a larger size"
            )

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the keys that say it."""
        return {"model.queries": self.queries, "model.topk": self.topk}

    @property
    def roles(self) -> Roles:
        """Patterns of the weights and seams that a method may name by one word."""
        return ROLES

    def build(self, subject: Subject) -> Segmenter:
        """Build the model with random weights; only the number of classes matters."""
        from segsweep.loss.maskdino import MaskDINOCriterion
        from segsweep.model.heads.query import reader
        from segsweep.model.segmenter import Segmenter

        backbone = self.backbone.build()
        classes = len(subject.texts)
        criterion = MaskDINOCriterion(classes, vars(self.loss), self.points)
        read = reader(subject, criterion.classify, self.topk, self.focus_on_box)
        head = self.head(backbone.channels, classes, read)
        return Segmenter(backbone, head, criterion, drop_path=self.backbone.drop_path > 0)

    def head(
        self, channels: list[int], num_classes: int, reader: Reader | None = None
    ) -> QueryHead:
        """Build what stands behind a backbone with maps of these channels."""
        from segsweep.loss import boxes
        from segsweep.model.heads.predictor import Predictor
        from segsweep.model.heads.query import QueryHead
        from segsweep.model.heads.transformer_decoder import DecoderLayer
        from segsweep.model.necks.pixel_decoder import PixelDecoder

        count = len(self.levels) + self.extra_levels
        pixel_decoder = PixelDecoder(
            channels,
            [MAPS.index(level) for level in self.levels],
            self.extra_levels,
            coarse_first=self.feature_order is FeatureOrder["high2low"],
            hidden=self.hidden,
            heads=self.encoder_heads,
            ffn=self.encoder_ffn,
            layers=self.encoder_layers,
            mask_dim=self.mask_dim,
        )
        layers = [
            DecoderLayer(self.hidden, self.decoder_heads, self.decoder_ffn, count)
            for _ in range(self.decoder_layers)
        ]
        mask_boxes = {"mask2box": boxes.mask2box, "bitmask": boxes.bitmask, "no": None}
        predictor = Predictor(
            num_classes,
            layers,
            hidden=self.hidden,
            mask_dim=self.mask_dim,
            queries=self.queries,
            mask_boxes=mask_boxes[self.box_init.value],
            dn_number=self.dn_number,
            dn_noise=self.dn_noise,
        )
        return QueryHead(pixel_decoder, predictor, reader)

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw `class_tensors` anew."""
        import torch

        from segsweep.model.heads.predictor import Predictor

        predictor = model.sem_seg_head.predictor
        assert isinstance(predictor, Predictor)
        predictor.reset_classes(torch.Generator().manual_seed(seed))

    def ours(self, state: State) -> State:
        """Give official weights our names, see `from_official`."""
        return from_official(state, self.backbone.layout)

    def official(self, model: Segmenter) -> State:
        """Return the whole state dict of a model under its official names."""
        return to_official(model.state_dict(), self.backbone.layout)


LAYERS = "sem_seg_head.*coder.layers.*"  # of encoder and decoder
ROLES = {
    "head": ["sem_seg_head.*"],
    "encoder": ["sem_seg_head.pixel_decoder.transformer.*"],
    "decoder": ["sem_seg_head.predictor.*"],
    "embeddings": [
        "sem_seg_head.predictor.class_embed.*",
        "sem_seg_head.predictor.mask_embed.*",
        "sem_seg_head.predictor._bbox_embed.*",
    ],
    "deformable": [
        f"sem_seg_head.{place}.{name}.weight"
        for place in (
            "pixel_decoder.transformer.encoder.layers.*.self_attn",
            "predictor.decoder.layers.*.cross_attn",
        )
        for name in ("sampling_offsets", "value_proj")
    ],
    "keys": ["sem_seg_head.predictor.decoder.layers.*.self_attn.in_proj_weight:k"],
    "values": [
        "sem_seg_head.*.value_proj.weight",
        "sem_seg_head.predictor.decoder.layers.*.self_attn.in_proj_weight:v",
    ],
    "feedforward": ["sem_seg_head.*.layers.*.linear2.weight"],
    "ffn": ["sem_seg_head.*.layers.*.linear[12].weight"],
    "linears": [f"{LAYERS}.{part}" for part in ("*_attn.*weight", "linear[12].weight")],
    "norms": [f"{LAYERS}.norm[123].*", "sem_seg_head.predictor.*_norm.*"],
    "patches": [],
    "attention": ["sem_seg_head.predictor.decoder.layers.*.self_attn.in_proj_weight"],
    "seams": ["sem_seg_head.*.after_self_attn", "sem_seg_head.*.after_cross_attn"],
    "backbone": ["backbone.*"],
    "biases": ["backbone.*.bias"],
}

# parts of official names and of ours, see `renamed`
RENAMED: dict[str, list[tuple[str, str]]] = {
    "resnet": [
        (".shortcut.norm.", ".downsample.1."),
        (".shortcut.", ".downsample.0."),
        *((f".conv{i}.norm.", f".bn{i}.") for i in (1, 2, 3)),
        *((f"backbone.res{i + 1}.", f"backbone.layer{i}.") for i in (1, 2, 3, 4)),
        *((f"backbone.stem.{part}.", f"backbone.{part}.") for part in ("conv1", "bn1")),
    ],
    "swin": [(f"backbone.{theirs}", f"backbone.{ours}") for theirs, ours in MERGING],
}
OFFICIAL = re.compile(r"backbone\.(stem|res\d|layers\.0\.downsample)\.")  # never a name of ours
TABLE = "relative_position_bias_table"
SHARED = [  # other names of modules that the state dict repeats
    (re.compile(r"predictor\.(decoder\.)?bbox_embed\.\d+\."), "predictor._bbox_embed."),
    (re.compile(r"predictor\.decoder\.norm\."), "predictor.decoder_norm."),
]


def from_official(state: State, layout: str) -> State:
    """Give official weights our names, each tensor once; weights under our names pass."""
    pairs = RENAMED.get(layout, []) if any(map(OFFICIAL.match, state)) else []
    ours = {}
    for name, tensor in state.items():
        if name.endswith(INDEX):
            continue  # computed from the window size
        name = renamed(name, pairs)
        for alias, first in SHARED:
            name = alias.sub(first, name)
        ours[name] = tensor
    return ours


def to_official(state: State, layout: str) -> State:
    """Give the whole state dict of a model its official names."""
    official = {}
    for name, tensor in state.items():
        name = renamed(name, RENAMED.get(layout, []), back=True)
        official[name] = tensor
        if layout == "swin" and name.endswith(TABLE):
            official[name.removesuffix(TABLE) + INDEX] = _position_index(tensor.shape[0])
    return official


def _position_index(offsets: int) -> Tensor:
    """Row of Swin's bias table for each pair of cells of a w x w window; (2w - 1)^2 offsets."""
    import torch

    side = round(offsets**0.5)
    cells = torch.cartesian_prod(*[torch.arange((side + 1) // 2)] * 2)
    offset = cells[:, None] - cells[None] + side // 2
    return offset[..., 0] * side + offset[..., 1]

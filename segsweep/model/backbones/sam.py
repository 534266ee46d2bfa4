"""The image encoder of SAM (Kirillov 2023, arXiv:2304.02643): one map, behind its neck.

It is segment_anything's encoder under timm's names: LayerNorm with eps 1e-6 where timm has 1e-5,
and an absolute position code that is resampled without antialias. Other sizes than that of the
position code are taken, non-square ones too. Files of segment_anything, of transformers, of timm
and of MMPretrain are read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import names
from segsweep.model.backbones.base import State
from segsweep.model.backbones.host import Grid, Host, as_map, halved, resampled, single
from segsweep.model.backbones.timm import create
from segsweep.model.layers.block import HostBlock, WindowBlock, is_plain
from segsweep.model.layers.seam import Seam
from segsweep.model.sam_names import LINEAR, from_official

PYRAMID = False
BLOCKS = True
SIGN = r"\.attn\.rel_pos_h$"
MMPRETRAIN = [(r"^channel_reduction\.", "neck."), (LINEAR.pattern, r".mlp.fc\1.")]
SMALL = {
    "name": "VisionTransformerSAM",
    "kwargs": {"img_size": 64, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2}
    | {"window_size": 3, "global_attn_indexes": [1], "use_rel_pos": True, "neck_chans": 8},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> SAMEncoder:
    """Build timm's model of a name, or with all sizes in kwargs; raises as `timm.create`."""
    sizes = {"norm_layer": partial(nn.LayerNorm, eps=1e-6), "num_classes": 0}
    sam = create(name, pretrained, **{**sizes, "drop_path_rate": drop_path, **kwargs})
    if not (isinstance(sam, VisionTransformerSAM) and all(map(is_plain, sam.blocks))):
        raise UserError(
            f"model.backbone.name={name} is no encoder of SAM, as model.backbone.layout=sam wants; "
            "choose samvit_base_patch16, samvit_large_patch16, samvit_huge_patch16, or "
            "VisionTransformerSAM with all sizes in model.backbone.kwargs"
        )
    return SAMEncoder(sam, name, kwargs)


def weights(state: State, backbone: SAMEncoder, repatch: str = "") -> State:
    """Find the image encoder in a file of whatever naming, with codes and tables of its size.

    Raises UserError for other models, also those with patches of another size.
    """
    found = names.from_mmpretrain(names.alone(from_official(state)), MMPRETRAIN)
    own = backbone.state_dict()
    for name, tensor in found.items():
        if name == "pos_embed" and name in own and tensor.ndim == 4:
            rows, columns = own[name].shape[1:3]
            found[name] = resampled(single(tensor), (rows, columns))
        elif "rel_pos" in name and name in own and not any(_window(backbone, name)):
            found[name] = lengthened(single(tensor), len(own[name]))
    return names.taken(found, backbone, state)


def _window(backbone: SAMEncoder, name: str) -> Grid:
    block = backbone.get_submodule(name.partition(".attn.")[0])
    assert isinstance(block, SAMBlock)
    return block.window


class SAMEncoder(Host):
    """Windowed and global blocks with decomposed relative positions, then the neck."""

    def __init__(self, sam: VisionTransformerSAM, name: str, kwargs: dict[str, Any]):
        super().__init__(sam.patch_embed, sam.embed_dim)
        self.name, self.kwargs = name, kwargs
        self.pos_embed = sam.pos_embed
        self.blocks = nn.ModuleList(SAMBlock(block) for block in sam.blocks)
        self.neck = sam.neck
        if isinstance(sam.neck, nn.Sequential):
            self.neck = EncoderNeck(sam.neck, sam.num_features)
        self.channels, self.strides = [sam.num_features], [self.patch_embed.patch_size[0]]

    def stream(self, embedded: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H W, C)"""
        if self.pos_embed is not None:
            embedded = embedded + resampled(self.pos_embed, halved(embedded, 0))
        return embedded.flatten(1, 2)

    def tail(self) -> tuple[nn.Module, ...]:
        """Return the neck."""
        return (self.neck,)

    def leave_neck(self) -> None:
        """Give the last tokens as a map; see `Backbone`."""
        self.neck, self.channels = nn.Identity(), [self.side.width]
        self.gives = "tokens"

    def read(self, x: Tensor, state: State) -> list[Tensor]:
        """(B, P + H W, C) -> the map (B, channels, H, W)"""
        return [self.neck(as_map(x, halved(state["embedded"], 0)))]

    def narrow(self, width: int, rel_pos: bool = True) -> list[HostBlock]:
        """Build new blocks of this width, see `Host.narrow`."""
        sizes = {"embed_dim": width, "init_values": None, "qkv_bias": True}
        sizes |= {} if rel_pos else {"use_rel_pos": False}
        other = build(self.name, {**self.kwargs, **sizes})
        return [block for block in other.modules() if isinstance(block, HostBlock)]


class EncoderNeck(nn.Sequential):
    """Two convolutions without a bias, each with a norm behind it, and a seam between both."""

    def __init__(self, neck: nn.Sequential, channels: int):
        super().__init__(*neck)
        self.after_0, self.after_2 = Seam(channels), Seam(channels)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H, W)"""
        x = self[1](self.after_0(self[0](input), input))
        return self[3](self.after_2(self[2](x), x))


class SAMBlock(WindowBlock):
    """A block of SAM; all but a few have windows."""

    def __init__(self, block: nn.Module):
        side: Any = block.window_size
        super().__init__(block, (side, side))

    def bias(self, q: Tensor, grid: Grid, whole: Grid) -> Tensor | None:
        """Unscaled queries times relative positions of rows and of columns.

        (B', heads, H W, c) -> (B', heads, H W, H W)
        """
        if not self.attn.use_rel_pos:
            return None
        rows, columns = (
            relative(table, size)
            for table, size in zip((self.attn.rel_pos_h, self.attn.rel_pos_w), grid, strict=True)
        )
        q = q.unflatten(2, grid)
        down = torch.einsum("bnhwc,hkc->bnhwk", q, rows)
        across = torch.einsum("bnhwc,wkc->bnhwk", q, columns)
        return (down[..., :, None] + across[..., None, :]).flatten(4, 5).flatten(2, 3)


def relative(table: Tensor, size: int) -> Tensor:
    """Look up each pair of a query and a key along an axis: (2 S - 1, c) -> (size, size, c).

    Tables for other sizes are interpolated linearly along their length.
    """
    table = lengthened(table, 2 * size - 1)
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places + size - 1]


def lengthened(table: Tensor, length: int) -> Tensor:
    """Interpolate a table linearly along its length: (l, c) -> (length, c)"""
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], length, mode="linear")[0].T

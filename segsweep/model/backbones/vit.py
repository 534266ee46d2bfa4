"""Plain vision transformers (Dosovitskiy 2021, arXiv:2010.11929) and DINOv2: one map.

timm's models under timm's names, which for DINOv2 are those of the official files but for
`mask_token` and registers. Files of MMPretrain are read, too. A grid of any size is taken: the
position code is resampled bicubically without antialias in every forward pass, as DINOv2 does and
timm does not.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import names, patches
from segsweep.model.backbones.base import CLASS_TOKEN, NO_TOKEN, State
from segsweep.model.backbones.host import Host, as_map, halved, resampled
from segsweep.model.backbones.timm import create
from segsweep.model.layers.block import HostBlock, is_plain

PYRAMID = False
BLOCKS = True
SIGN = r"(^|\.)(blocks\.0\.norm1|layers\.0\.ln1)\.weight$"
OFFICIAL = [  # of DINOv2
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
SMALL = {
    "name": "VisionTransformer",
    "kwargs": {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2}
    | {"init_values": 0.5, "reg_tokens": 1},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> ViT:
    """Build timm's model of a name, or with all sizes in kwargs; raises as `timm.create`."""
    sizes = {"num_classes": 0, "global_pool": "", "drop_path_rate": drop_path}
    vit = create(name, pretrained, **{**sizes, **kwargs})
    plain = type(vit) is VisionTransformer and type(vit.patch_embed) is PatchEmbed
    if not plain or not all(type(block) is TimmBlock and is_plain(block) for block in vit.blocks):
        raise UserError(
            f"model.backbone.name={name} is no plain vision transformer, as "
            "model.backbone.layout=vit wants: patches by a convolution, blocks with a norm before "
            "fused attention and before a feed-forward; choose for example vit_base_patch16_224, "
            "vit_base_patch14_dinov2, or VisionTransformer with all sizes in model.backbone.kwargs"
        )
    return ViT(vit, name, kwargs)


def weights(state: State, backbone: ViT, repatch: str = "bicubic") -> State:
    """Find the weights in a file of DINOv2, timm, MMPretrain or segsweep, in the model's sizes.

    Raises UserError for those of other models, and patches of another size that `repatch` leaves.
    """
    found = names.from_mmpretrain(names.substituted(names.alone(state), OFFICIAL))
    own, grid = backbone.state_dict(), backbone.patch_embed.grid_size
    found = patches.fitted(found, own, backbone.coded, grid, repatch)
    return names.taken(found, backbone, state)


class ViT(Host):
    """Blocks with global attention, the final norm, and the patches as one map."""

    def __init__(self, vit: VisionTransformer, name: str, kwargs: dict[str, Any]):
        super().__init__(vit.patch_embed, vit.embed_dim)
        self.name, self.kwargs = name, kwargs
        self.cls_token, self.reg_token = vit.cls_token, vit.reg_token
        self.pos_embed = vit.pos_embed
        self.pos_drop, self.norm_pre = vit.pos_drop, vit.norm_pre
        self.blocks = nn.ModuleList(HostBlock(block) for block in vit.blocks)
        self.norm = vit.norm
        self.prefix = vit.num_prefix_tokens
        self.coded = 0 if vit.no_embed_class else self.prefix  # prefix tokens with a position code
        self.channels, self.strides = [vit.embed_dim], [self.patch_embed.patch_size[0]]

    def stream(self, embedded: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, P + H W, C)"""
        ahead = [t.expand(len(embedded), -1, -1) for t in self._ahead()]
        if self.pos_embed is not None:
            code = self.pos_embed[:, self.coded :].unflatten(1, self.patch_embed.grid_size)
            embedded = embedded + resampled(code, halved(embedded, 0))
        x = torch.cat((*ahead, embedded.flatten(1, 2)), dim=1)
        return self.norm_pre(self.pos_drop(x))

    def _ahead(self) -> list[Tensor]:
        """Class token and registers with their position code, each (1, n, C)."""
        tokens: list[Tensor] = [t for t in (self.cls_token, self.reg_token) if t is not None]
        if not tokens or self.pos_embed is None or not self.coded:
            return tokens
        return [torch.cat(tokens, dim=1) + self.pos_embed[:, : self.coded]]

    def front(self) -> tuple[nn.Module, ...]:
        """Return what else `stream` uses."""
        return (self.norm_pre,)

    def tail(self) -> tuple[nn.Module, ...]:
        """Return the final norm."""
        return (self.norm,)

    def give_class_token(self) -> None:
        """Give the class token; see `Backbone`."""
        if self.cls_token is None:
            raise UserError(NO_TOKEN)
        self.gives = CLASS_TOKEN

    def read(self, x: Tensor, state: State) -> list[Tensor]:
        """(B, P + H W, C) -> the map (B, C, H, W), or the class token (B, C, 1, 1)"""
        x = self.norm(x)
        if self.gives == CLASS_TOKEN:
            return [x[:, 0, :, None, None]]
        return [as_map(x, halved(state["embedded"], 0))]

    def narrow(self, width: int, rel_pos: bool = True) -> list[HostBlock]:
        """Build new blocks of this width, see `Host.narrow`."""
        sizes = {"embed_dim": width, "init_values": None, "qkv_bias": True}
        other = build(self.name, {**self.kwargs, **sizes})
        return [block for block in other.modules() if isinstance(block, HostBlock)]

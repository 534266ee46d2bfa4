"""Swin transformers that agree with those of detectron2-style detectors in padding and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.backbones.timm import create

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

SMALL = {
    "name": "swin_tiny_patch4_window7_224",
    "kwargs": {"img_size": 16, "embed_dim": 8, "depths": [2] * 4, "num_heads": [1, 1, 2, 2]}
    | {"window_size": 4},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> tuple[nn.Module, list[int]]:
    """Build a Swin transformer of timm, and the channels of its maps; raises as `timm.create`."""
    sizes = {"strict_img_size": False, "always_partition": True}
    swin = create(name, pretrained, drop_path_rate=drop_path, **sizes, **kwargs)
    backbone = SwinFeatures(swin)
    return backbone, backbone.channels


class SwinFeatures(nn.Module):
    """A timm Swin transformer with a norm for every output, as in detectron2-style detectors."""

    def __init__(self, swin: SwinTransformer):
        super().__init__()
        self.patch_embed = swin.patch_embed
        self.layers = nn.ModuleList(swin.layers)
        self.channels = [int(info["num_chs"]) for info in swin.feature_info]
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C_i, H_i, W_i) of all stages"""
        x, maps = self.patch_embed(images), []  # (B, H/4, W/4, C)
        for i, stage in enumerate(self.layers):
            x = stage.get_submodule("downsample")(x)
            for block in stage.get_submodule("blocks").children():
                x = _shifted_window(cast("SwinTransformerBlock", block), x)
            maps.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
        return maps


def _shifted_window(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Run a timm block on (B, H, W, C), padding to whole windows before the shift.

    timm shifts first and pads then, which mixes other cells at the border. Its parts are asked
    for here only: `_attn` (shift, windows, attention) has no public name.
    """
    height, width = x.shape[1:3]
    down, right = -height % block.window_size[0], -width % block.window_size[1]
    padded = F.pad(block.norm1(x), (0, 0, 0, right, 0, down))
    x = x + block.drop_path1(block._attn(padded)[:, :height, :width])
    return x + block.drop_path2(block.mlp(block.norm2(x)))

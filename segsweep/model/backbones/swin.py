"""Swin transformers that agree with those of detectron2-style detectors in padding and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.backbones import STRIDES
from segsweep.model.backbones.base import Backbone, State, Step, numbered
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
) -> Backbone:
    """Build a Swin transformer of timm; raises as `timm.create`."""
    sizes = {"strict_img_size": False, "always_partition": True}
    return SwinFeatures(create(name, pretrained, drop_path_rate=drop_path, **sizes, **kwargs))


class SwinFeatures(Backbone):
    """A timm Swin transformer with a norm for every output, as in detectron2-style detectors."""

    def __init__(self, swin: SwinTransformer):
        super().__init__()
        self.patch_embed = swin.patch_embed
        self.layers = nn.ModuleList(swin.layers)
        self.channels = [int(info["num_chs"]) for info in swin.feature_info]
        self.strides = list(STRIDES)
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def steps(self) -> list[Step]:
        """Return one step."""
        return [Step((self,), self._all)]

    def _all(self, state: State) -> State:
        x, maps = self.patch_embed(state["images"]), []  # (B, H/4, W/4, C)
        for i, stage in enumerate(self.layers):
            x = stage.get_submodule("downsample")(x)
            for block in stage.get_submodule("blocks").children():
                x = _shifted_window(cast("SwinTransformerBlock", block), x)
            maps.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
        return numbered(maps)


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

"""FocalNets (Yang 2022, arXiv:2203.11926) as SEEM uses them, made of timm's blocks.

Images are multiples of 32 high and wide, as every collated batch is: other sizes the released
program pads before each strided convolution and timm does not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models.focalnet import FocalNet
from torch import nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import STRIDES
from segsweep.model.backbones.base import Backbone, State, Step, numbered
from segsweep.model.backbones.timm import create

SIGN = r"\.modulation\.f\.weight$"
SMALL = {
    "name": "FocalNet",
    "kwargs": {"embed_dim": 8, "depths": [1, 1, 1, 1], "focal_levels": [2] * 4}
    | {"focal_windows": [3] * 4, "use_post_norm": True, "use_overlap_down": True},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> Backbone:
    """Build a FocalNet with output norms; raises as `timm.create`."""
    return FocalFeatures(focalnet(name, "focal", kwargs, drop_path, pretrained))


def focalnet(
    name: str, layout: str, kwargs: dict[str, Any], drop_path: float, pretrained: bool
) -> FocalNet:
    """Build a FocalNet of timm without its classifier; raises as `timm.create`."""
    sizes = {"num_classes": 0, "drop_path_rate": drop_path, **kwargs}
    focal = create(name, pretrained, **sizes)
    if not isinstance(focal, FocalNet):
        raise UserError(f"model.backbone.name={name} is no FocalNet, as layout={layout} wants")
    return focal


class FocalFeatures(Backbone):
    """A timm FocalNet with a norm for every output; the next stage sees the map before the norm."""

    def __init__(self, focal: FocalNet):
        super().__init__()
        self.stem, self.layers = focal.stem, focal.layers
        self.channels = [int(info["num_chs"]) for info in focal.feature_info]
        self.strides = list(STRIDES)
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def steps(self) -> list[Step]:
        """Return the stem and each stage with its norm."""
        stem = Step((self.stem,), lambda state: {"stream": self.stem(state["images"])})
        norms = [self.get_submodule(f"norm{i}") for i in range(len(self.layers))]
        stages = zip(self.layers, norms, strict=True)
        return [stem, *(Step(stage, partial(self._stage, i)) for i, stage in enumerate(stages))]

    def _stage(self, i: int, state: State) -> State:
        x = self.layers[i](state["stream"])  # (B, C_i, H_i, W_i)
        normed = self.get_submodule(f"norm{i}")(x.permute(0, 2, 3, 1))
        state = {**state, "stream": x, str(i): normed.permute(0, 3, 1, 2).contiguous()}
        return state if i + 1 < len(self.layers) else numbered(self.maps(state))

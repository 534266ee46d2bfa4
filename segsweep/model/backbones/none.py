"""No backbone: models that are lent whole have their own, and take images as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segsweep.model.backbones.base import Backbone, State, Step

PYRAMID = False
SMALL = {"name": "", "kwargs": {}}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> NoBackbone:
    """Return it; nothing can be said of it."""
    return NoBackbone()


class NoBackbone(Backbone):
    """The images themselves are its map; nothing is done to them."""

    channels, strides = [3], [1]

    def steps(self) -> list[Step]:
        """Return none."""
        return []

    def maps(self, state: State) -> list[Tensor]:
        """(B, 3, H, W) as they are"""
        return [state["images"]]

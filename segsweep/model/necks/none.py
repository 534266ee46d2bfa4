"""No neck: the levels are the maps of the backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segsweep.model.necks.base import Neck


def build(channels: Sequence[int], strides: Sequence[float]) -> Neck:
    """Build it."""
    return Same(channels, strides)


class Same(Neck):
    """Gives what it is given."""

    def __init__(self, channels: Sequence[int], strides: Sequence[float]):
        super().__init__()
        self.channels, self.strides = list(channels), list(strides)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) -> the same"""
        return maps

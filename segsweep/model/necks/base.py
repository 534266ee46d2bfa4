"""What stands between a backbone and layers that read several maps of equal width.

A neck is a file here with `build(channels, strides, **kwargs) -> Neck`; both are the backbone's.
"""

from __future__ import annotations

from torch import Tensor, nn


class Neck(nn.Module):
    """Turns the maps of a backbone into levels, each (B, channels[i], H/strides[i], W/strides[i]).

    Raises UserError in the forward for images so small that a level would vanish.
    """

    channels: list[int]
    strides: list[float]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) of the backbone -> levels, fine ones first"""
        raise NotImplementedError

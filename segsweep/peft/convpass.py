"""Convolutional bypasses: bottlenecks that see the map, beside attention and feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

ConvInit = Enum("ConvInit", {"identity": "identity", "xavier": "xavier"})
BESIDE = ("beside_attn", "beside_mlp")


@dataclass
class Bypasses(BlockMethod):
    """x + Attn(u) + s up(drop(h)), h = phi(conv(phi(down(u)))), u = LN(x); feed-forwards likewise.

    The bottleneck h has r channels, phi(x) = x sigmoid(1.702 x), and the convolution sees the whole
    map; a class token is a map of one cell. Two per block, outside LayerScale, each with
    2dr + r + d parameters beside those of its convolution. `up` starts at zero, so training starts
    at the base. Cannot be merged.
    """

    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}
    axes: ClassVar[dict[str, str]] = {"scale": "scale s"}
    needs_grid: ClassVar[bool] = True

    rank: int = within(8, least=1)
    scale: float = within(0.1, above=0)
    dropout: float = within(0.1, below=1)
    """Share of the bottleneck's features that a forward of training drops."""

    def bypass(self, width: int, conv: nn.Module | None) -> nn.Module:
        """Make a bypass around a convolution, or none, for tokens of so many channels."""
        from segsweep.peft.layers_spatial import Bypass

        return Bypass(width, self.rank, self.scale, self.dropout, conv)

    def size(self, shape: tuple[int, ...]) -> int:
        """2dr + r + d."""
        (width,) = shape
        return 2 * width * self.rank + self.rank + width


@dataclass
class Convpass(Bypasses):
    """Bypasses with a learned convolution (Jie & Deng 2022, arXiv:2207.07039), 9r^2 + r parameters.

    `init` of the convolution: `identity` (its centre tap) or `xavier`. The paper chooses s per task
    among .01, .1, 1, 10 and 100; the default is ours.
    """

    init: ConvInit = ConvInit.identity

    def filling(self, width: int) -> nn.Module:
        """Make a bypass for tokens of so many channels."""
        from segsweep.peft.layers_spatial import StaticConv

        return self.bypass(width, StaticConv(self.rank, self.init.name))

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill both places of every block, see `Method.inject`."""
        return places.fill([f"*.{place}" for place in BESIDE], self.filling)

    def size(self, shape: tuple[int, ...]) -> int:
        """2dr + r + d + 9r^2 + r."""
        return super().size(shape) + self.rank * (9 * self.rank + 1)

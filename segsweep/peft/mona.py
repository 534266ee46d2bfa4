"""Mona: adapters that filter tokens as a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places


@dataclass
class Mona(BlockMethod):
    """x + up(Drop(GELU(v))), v = f + conv1(f), f = u + mean_k DWconv_k(u), k = 3, 5, 7.

    u = down(γ LN(x) + γ_x x) as a map; x is the stream behind attention's sum, and behind that of
    the feed-forward. Yin et al. 2024, arXiv:2408.08345; swin_transformer_mona.py of its release. γ
    starts at 1e-6, γ_x at 1, layers as those of PyTorch: it does not start at the base.

    Adds 2dh + 5d + h² + 88h parameters per place, h = `hidden` (133d + 9,728 for the 64 of the
    authors). Tokens without a place in the map, such as ViT's class token, pass as they are, which
    is our definition: the authors have Swin alone.
    """

    needs_grid: ClassVar[bool] = True
    shown: ClassVar[dict[str, str]] = {"hidden": "h={}"}

    hidden: int = within(64, least=1)
    dropout: float = within(0.1, below=1)

    @property
    def identity(self) -> bool:
        """No: `up` does not start at 0."""
        return False

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the places, see `Method.inject`."""
        from segsweep.peft.layers_mona import Cognitive

        def module(width: int) -> nn.Module:
            return Cognitive(width, self.hidden, self.dropout)

        return places.fill(["*.after_attn_sum", "*.after_block"], module)

    def size(self, shape: tuple[int, ...]) -> int:
        """2dh + 5d + h² + 88h: h (9 + 25 + 49) are filters, 5h biases."""
        (width,) = shape
        return (2 * width + self.hidden + 88) * self.hidden + 5 * width

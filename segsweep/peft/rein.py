"""Rein: tokens, learned for each block, that refine what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

TokenForm = Enum("TokenForm", {"low_rank": "low_rank", "full": "full"})


@dataclass
class Rein(BlockMethod):
    """f + scale W_f(f + S' W_t(T')) behind every block, S = softmax(f T^t / sqrt(d)) over m tokens.

    Wei et al. 2024 (arXiv:2312.04265): the softmax counts the first token of T, the sum ' leaves it
    out; class token and other prefix tokens pass as they are. `form=low_rank` makes T = A B of rank
    r, `form=full` learns T itself. All blocks share W_t and W_f, with biases, and the scale, which
    is learned from `scale`; where blocks differ in width (Swin), those of a width do (ours).
    There is no link from the tokens to the queries of a Mask2Former, as heads here have none.

    mr + rd parameters per block, md where full; once per width 2(d^2 + d) + 1. Does not start at
    the base, but near it. Cannot be merged. The paper has no weight decay on T and the scale:
    `hparams.decays={*.tokens.*: 0, *.shared.*.scale: 0}`.
    """

    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}
    axes: ClassVar[dict[str, str]] = {"length": "tokens m"}
    needs_grid: ClassVar[bool] = True

    length: int = within(100, least=2)
    """m, the number of tokens of a block."""
    form: TokenForm = TokenForm.low_rank
    rank: int = within(16, least=1)
    scale: float = within(1e-3, above=0)

    @property
    def identity(self) -> bool:
        """No: the scale is small but not zero."""
        return False

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the place behind every block, and `shared` of the host, see `Method.inject`."""
        from math import prod

        from torch import nn

        from segsweep.peft.layers_rein import Projections, Refinement

        rank = self.rank if self.form is TokenForm.low_rank else None
        patch = prod(places.host.patch_embed.patch_size)

        def refinement(width: int) -> nn.Module:
            return Refinement(width, self.length, rank, patch)

        sites = places.fill(["*.after_block"], refinement)
        shared = {str(d): Projections(d, self.scale) for (d,) in dict.fromkeys(sites.values())}
        places.put({"backbone.shared": nn.ModuleDict(shared)})
        return sites

    def size(self, shape: tuple[int, ...]) -> int:
        """mr + rd, or md."""
        (width,) = shape
        if self.form is TokenForm.full:
            return self.length * width
        return self.rank * (self.length + width)

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """2(d^2 + d) + 1 for each width."""
        return sum(2 * (d**2 + d) + 1 for (d,) in set(places.values()))

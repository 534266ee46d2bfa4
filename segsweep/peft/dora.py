"""Weight-decomposed low-rank adaptation: the length of a row learns apart from its direction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from segsweep.peft.lora import Fused, LoRA, low_rank

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.peft.layers import Edit
    from segsweep.peft.sites import Site


@dataclass
class DoRA(LoRA):
    """m (W + scale B A) / ||W + scale B A||, row by row (Liu et al. 2024, arXiv:2402.09353, eq. 5).

    m starts as the lengths of the rows of W, so training starts at the base; the length that it is
    divided by counts as a constant in gradients (section 4.3 of the paper). Adds
    rank (in + out) + out parameters per place. A fused query-key-value weight has one pair of
    factors and 3 d lengths, as in the package peft.

    A row that is zero in the base has no direction: it keeps its plain low-rank update, and its
    length has no effect [def]. Fresh projections of sampling offsets are made of such rows.
    """

    sparse: ClassVar[bool] = True  # the lengths of a weight that is zero in the base do not learn

    fused: Fused = Fused.joint

    def edit(self, site: Site) -> Edit:
        """Return the edit of one weight, or of the rows of one."""
        from torch import nn

        from segsweep.peft.layers import Edit, factors

        drawn = factors(site, self.rank, self.init.name)
        lengths = nn.Parameter(site.weight.norm(dim=1))
        return Edit(site, partial(decomposed, scale=self.scale), **drawn, magnitude=lengths)

    def hf_lora(self) -> None:
        """Return nothing: where rows are zero the package peft divides by zero."""

    def size(self, shape: tuple[int, ...]) -> int:
        """rank (out + in) + out."""
        return super().size(shape) + shape[0]


def decomposed(
    weight: Tensor, lora_A: Tensor, lora_B: Tensor, magnitude: Tensor, scale: float
) -> Tensor:
    """Edit the directions of rows, give them their lengths. (out, in), ..., (out,) -> (out, in)"""
    edited = low_rank(weight, lora_A, lora_B, scale)
    blank = ~weight.any(dim=1)
    length = edited.detach().norm(dim=1).masked_fill(blank, 1.0)
    return edited * (magnitude / length).masked_fill(blank, 1.0)[:, None]

"""LoRand: bottlenecks whose projections are sums of low-rank products."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.adapter import reduced
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segsweep.peft.places import Places

Second = Enum(  # and the place of each
    "Second",
    {"after_mlp": "after_mlp", "before_mlp": "after_norm2", "after_block": "after_block"},
)


@dataclass
class LoRand(BlockMethod):
    """y + GELU(y W_D + b_D) W_U + b_U, W_D = sum_i P_i K_i Q_i, W_U = sum_i R_i K_i S_i.

    "1% VS 100%: Parameter-Efficient Low Rank Adapter for Dense Predictions" (Yin et al., CVPR
    2023), as the study of VFM-Adapter ported it (new_lorand.py); the authors released no code. P_i
    is (d, β), K_i, which both projections share, (β, β), Q_i (β, m), R_i (m, β), S_i (β, d), i =
    1..α; α = `branches`, β = `kernel`, m = d / `reduction`. All are uniform, within 1/sqrt(fan-in),
    so it does not start at the base. Adds α (2β (d + m) + β²) + m + d parameters per place.

    Two in every block: behind attention, before its sum, and by `second` behind the feed-forward,
    before its sum (the paper), before the feed-forward, behind its norm (the port), or behind its
    sum (the port's other form on Swin).
    """

    shown: ClassVar[dict[str, str]] = {"branches": "α={}", "kernel": "β={}"}
    axes: ClassVar[dict[str, str]] = {"branches": "branches α", "kernel": "kernel size β"}

    second: Second = Second.after_mlp
    branches: int = within(4, least=1)
    kernel: int = within(16, least=1)
    reduction: int = within(4, least=1)

    @property
    def identity(self) -> bool:
        """No: nothing starts at 0."""
        return False

    def hidden(self, width: int) -> int:
        """Divide the width d by the reduction, exactly."""
        return reduced(width, self.reduction, "the blocks")

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the places, see `Method.inject`."""
        import torch
        from torch import nn

        from segsweep.peft.layers import Filling

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:
            bound = fan_in**-0.5
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        def filling(d: int) -> nn.Module:
            a, b, m = self.branches, self.kernel, self.hidden(d)
            return Filling(
                adapted,
                P=uniform(b, a, d, b),
                K=uniform(b, a, b, b),
                Q=uniform(m, a, b, m),
                R=uniform(b, a, m, b),
                S=uniform(d, a, b, d),
                b_D=uniform(d, m),
                b_U=uniform(m, d),
            )

        return places.fill(["*.after_attn", f"*.{self.second.value}"], filling)

    def size(self, shape: tuple[int, ...]) -> int:
        """α (2β (d + m) + β²) + m + d."""
        (width,) = shape
        outer = width + self.hidden(width)
        return self.branches * (2 * self.kernel * outer + self.kernel**2) + outer


def adapted(y: Tensor, stream: Tensor, b_D: Tensor, b_U: Tensor, **factors: Tensor) -> Tensor:
    """Adapt what a sublayer gives, by the factors of all branches. (B, N, d) -> (B, N, d)"""
    from torch.nn.functional import gelu

    P, K, Q, R, S = (factors[name] for name in "PKQRS")
    return y + gelu(y @ synthesis(P, K, Q) + b_D) @ synthesis(R, K, S) + b_U


def synthesis(left: Tensor, kernel: Tensor, right: Tensor) -> Tensor:
    """Sum the products of all branches. (α, n, β), (α, β, β), (α, β, m) -> (n, m)"""
    return (left @ kernel @ right).sum(0)

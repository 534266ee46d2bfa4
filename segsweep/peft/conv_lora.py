"""Conv-LoRA: low-rank adaptation with convolutions, one of several chosen for each window."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

Gating = Enum("Gating", {"released": "released", "switch": "switch"})


@dataclass
class ConvLoRA(BlockMethod):
    """W x + b + alpha/r B (e + E(e)), e = A x (Zhong et al. 2024, arXiv:2401.17868).

    Stands beside the fused query-key-value layer of every block. E(e) is that of one of M experts,
    GELU(conv 3 x 3) at 1 .. M times the resolution; a gate chooses it for every window, or for the
    image where attention is global (`layers_conv_lora`). Adds 4 d r + M (9 r^2 + r) + 2 r M
    parameters per block of width d; B starts at 0, so training starts at the base. Cannot be
    merged: it is neither linear nor the same for all tokens.

    `gate=released` is the published program, which adds the "e +" and the GELU to the paper's
    equation and does not multiply E(e) with its gate: only the balancing loss (`loss_experts`)
    trains the gate. `gate=switch` multiplies by the softmax over all experts (Fedus et al. 2022,
    arXiv:2101.03961), so the task trains it, too; its balancing loss is the same with that softmax
    as gates [our definition]. Also ours: of equal logits, the lowest index is chosen (all are
    before training, so that expert 1 works in evaluation), and prefix tokens have no E(e).
    """

    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}
    axes: ClassVar[dict[str, str]] = {"alpha": "scale α", "experts": "experts M"}
    needs_grid: ClassVar[bool] = True
    has_auxiliary_loss: ClassVar[bool] = True
    sparse: ClassVar[bool] = True  # experts that no sample of a forward chose get no gradient

    seams: list[str] = field(default_factory=lambda: ["*.beside_qkv"])
    """Places to fill: patterns of the names of such places."""
    rank: int = within(3, least=1)
    alpha: float = within(32.0, above=0)
    """The added part is scaled by alpha / rank; fixed, it does not follow the rank."""
    experts: int = within(8, least=1)
    gate: Gating = Gating.released

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the places, see `Method.inject`.

        Raises UserError for one that is not beside queries, keys and values.
        """
        from segsweep.peft.layers_conv_lora import LowRankExperts

        def filling(width: int) -> nn.Module:
            switch = self.gate is Gating.switch
            return LowRankExperts(width, self.rank, self.alpha / self.rank, self.experts, switch)

        if wrong := [n for n in places.seams(self.seams) if not n.endswith(".beside_qkv")]:
            raise UserError(
                f"peft.seams: '{wrong[0]}' is not beside queries, keys and values; name places "
                "that are, as *.beside_qkv"
            )
        return places.fill(self.seams, filling)

    def size(self, shape: tuple[int, ...]) -> int:
        """4 d r + M (9 r^2 + r) + 2 r M at a place of width 3 d."""
        r, m = self.rank, self.experts
        return 4 * shape[0] // 3 * r + m * (9 * r * r + r) + 2 * r * m

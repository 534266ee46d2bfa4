"""Adapters that all blocks re-compose from shared projections, ARC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

Swin = Enum("Swin", {"released": "released", "port": "port"})


@dataclass
class ARC(BlockMethod):
    """u' = u (I + D diag(s) D^T) + c behind both norms of every block (Dong et al. 2023).

    arXiv:2310.06234. D (d, r) is shared by all blocks, one behind norm1 and another behind norm2;
    in a Swin by the blocks of a stage. Every place has its own s (r) and c (d), so it adds 2dr per
    width of blocks and r + d per place. In training `dropout` acts on the code u D diag(s).

    D is drawn Xavier-uniform, and so is s behind norm2, while s behind norm1 and c start at 0: it
    does not start at the base.

    `swin=released`: the authors' Swin has the second adapter on the residual stream, in front of
    norm2; `port` is the re-implementation in the study of VFM-Adapter, as in a ViT. Their Swin
    drops with `dropout=0.5`.

    `merge` folds an adapter into the linear layer that reads it: all in a ViT; those behind norm1
    of blocks with windows stay, as pads of windows do not pass them, and `swin=released` behind.
    """

    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}

    rank: int = within(50, least=1)
    dropout: float = within(0.1, below=1)
    swin: Swin = Swin.released

    def __post_init__(self) -> None:
        if isinstance(self.rank, int) and self.rank < 1:
            raise UserError(f"peft.rank={self.rank}: the rank must be at least 1")

    @property
    def identity(self) -> bool:
        """No: s behind norm2 is drawn."""
        return False

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill two places of every block, see `Method.inject`."""
        released = len(places.host.channels) > 1 and self.swin is Swin.released
        second = "after_attn_sum" if released else "after_norm2"
        first = self._fill(places, "after_norm1", drawn=False)
        return first | self._fill(places, second, drawn=True)

    def _fill(self, places: Places, where: str, drawn: bool) -> dict[str, tuple[int, ...]]:
        from torch import nn

        from segsweep.peft.layers_arc import Recomposition

        like, shared = next(places.model.parameters()), {}

        def make(width: int) -> nn.Module:
            if width not in shared:
                empty = like.new_empty(width, self.rank)
                shared[width] = nn.Parameter(nn.init.xavier_uniform_(empty))
            return Recomposition(shared[width], drawn, self.dropout)

        return places.fill([f"*.{where}"], make)

    def size(self, shape: tuple[int, ...]) -> int:
        """r + d."""
        return self.rank + shape[0]

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """dr for both places of blocks of every width d."""
        kinds = {(name.rpartition(".")[2], width) for name, (width,) in places.items()}
        return sum(self.rank * width for _, width in kinds)

"""Ladder side tuning: a small network beside the backbone, fed with what its blocks give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.peft.adapter import reduced
from segsweep.peft.method import BlockMethod, need_one_width

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places


@dataclass
class LST(BlockMethod):
    """s_i = Block_i(g_i s_(i-1) + (1 - g_i) D_i h_i), g_i = sigmoid(a_i / 0.1), s_0 = D_0 h_0.

    Sung et al. 2022 (arXiv:2206.06522): h_0 enters the first block of the backbone, h_i is what
    block i gives, and W_up LN(s_L) goes on in the place of h_L, to the final norm or the neck. No
    gradient enters the backbone.

    Side blocks are new ones like the host's without LayerScale, as many heads and every width
    divided by `reduction`: e = d / reduction. The authors' start from pruned weights of the
    backbone is not offered. Our definition where no source has one: those beside SAM have its
    windows, and relative positions of their own unless `rel_pos=false`.

    Adds per rung a block, 12 e^2 + 13 e if feed-forwards are 4 e wide, D_i, d e + e, and a gate;
    once D_0, the norm, 2 e, and W_up, e d + d. A gate of a dropped rung, kept by the release, is
    without effect, and not here.
    """

    needs_grid: ClassVar[bool] = True
    detached: ClassVar[bool] = True
    shown: ClassVar[dict[str, str]] = {"reduction": "ρ={}"}

    reduction: int = within(16, least=1)
    drop: list[int] = field(default_factory=list)
    """Blocks of the backbone without a rung beside them, the first is 0."""
    bias: bool = True  # in D_i and W_up; the release for CLIP has none, and no norm
    norm: bool = True
    merge_after: bool = False  # s_i = g_i Block_i(s_(i-1)) + (1 - g_i) D_i h_i
    rel_pos: bool = True

    @property
    def identity(self) -> bool:
        """No: what the backbone gives is replaced."""
        return False

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, and Unfit where blocks have several widths."""
        super().check(data, model)
        need_one_width(f"peft={self.name}", model)

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the place `side`, see `Method.inject`; a place is d and sizes of a side block."""
        from segsweep.peft.layers_tokens import Ladder, sizes

        rungs, d = self.rungs(places), places.host.side.width
        heads = next(iter(places.blocks().values())).attn.num_heads
        e = heads * reduced(d // heads, self.reduction, "the heads")
        new = places.host.narrow(e, self.rel_pos)
        side = {name: new[i] for name, i in rungs.items()}
        ladder = Ladder(d, side.values(), rungs.values(), self.bias, self.norm, self.merge_after)
        places.put({"backbone.side": ladder})
        return {name: (d, *sizes(block)) for name, block in side.items()}

    def rungs(self, places: Places) -> dict[str, int]:
        """Number the blocks that a rung stands beside, by their names."""
        every = list(places.host.get_submodule("blocks").children())
        if wrong := [i for i in self.drop if i >= len(every)]:
            raise UserError(f"peft.drop={wrong}: the backbone has blocks 0 to {len(every) - 1}")
        numbers = {name: every.index(block) for name, block in places.blocks().items()}
        rungs = {name: i for name, i in numbers.items() if i not in self.drop}
        if not rungs:
            raise UserError(f"peft.drop={self.drop} leaves no block a rung; leave out some of them")
        return rungs

    def size(self, shape: tuple[int, ...]) -> int:
        """A block, D_i and its gate; 12 e^2 + 13 e + d e + e + 1, see above."""
        d, e, up, down, tables = shape
        block = 4 * e * e + 9 * e + up * e + up + down * e + tables
        return block + d * e + e * self.bias + 1

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """D_0, the norm and W_up."""
        d, e, *_ = next(iter(places.values()))
        return 2 * d * e + (d + e) * self.bias + 2 * e * self.norm

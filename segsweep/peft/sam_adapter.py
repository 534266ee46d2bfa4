"""SAM-Adapter: what is fine in the image and its patches, told to every block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.adapter import reduced
from segsweep.peft.method import BlockMethod, need_one_width

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places

Embedding = Enum("Embedding", {"fixed": "fixed", "released": "released"})


@dataclass
class SAMAdapter(BlockMethod):
    """x + P_i before each block i, P_i = W_s GELU(W_i (F_hand + F_emb) + b_i) + b_s.

    Chen et al. 2023 (arXiv:2304.09148, eqs. 1 and 2): F_hand are patches of the image behind a
    high-pass filter of its spectrum, which takes away the share `tau` in the middle, brought to e
    by a convolution; F_emb = W_e x_patch, x_patch the patch embedding before its position code;
    e = d / `reduction`. All blocks share W_s, W_e and the convolution. Ours: prefix tokens stay as
    they are, and the filter is cut at the borders of elongated spectra (`highpass`).

    `f_emb=released` reads x_patch, (H W, d) per image, as if it were (d, H W), as the released
    program does, which tells a cell what belongs to others.

    Adds e^2 + e per block; once W_e and W_s, 2 d e + e + d, and the convolution, 3 p^2 e + e for
    patches of p x p.
    """

    needs_grid: ClassVar[bool] = True
    shown: ClassVar[dict[str, str]] = {"reduction": "s={}"}

    reduction: int = within(32, least=1)
    tau: float = within(0.25, above=0, below=1)
    f_emb: Embedding = Embedding.fixed

    @property
    def identity(self) -> bool:
        """No: no layer starts at zero."""
        return False

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, and Unfit where blocks have several widths."""
        super().check(data, model)
        need_one_width(f"peft={self.name}", model)

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill `before_block` of all blocks, see `Method.inject`; a place is e, d and 3 p^2."""
        from segsweep.peft.layers_tokens import TaskFeatures, TaskPrompt

        d, patch = places.host.shared.width, places.host.patch_embed.patch_size
        e = reduced(d, self.reduction, "the blocks")
        released = self.f_emb is Embedding.released
        names = [f"{name}.before_block" for name in places.blocks()]
        shared = TaskFeatures(d, e, patch, self.tau, released)
        places.put({"backbone.shared": shared, **{name: TaskPrompt(e) for name in names}})
        return dict.fromkeys(names, (e, d, 3 * patch[0] * patch[1]))

    def size(self, shape: tuple[int, ...]) -> int:
        """e^2 + e."""
        e, *_ = shape
        return e * e + e

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """2 d e + e + d + 3 p^2 e + e."""
        e, d, numbers = next(iter(places.values()))
        return 2 * d * e + e + d + numbers * e + e

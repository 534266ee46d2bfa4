"""Low-rank adaptation whose second factor learns faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.base.config import within
from segsweep.peft.lora import LoRA

if TYPE_CHECKING:
    from segsweep.peft.layers import Edit
    from segsweep.peft.sites import Site


@dataclass
class LoRAPlus(LoRA):
    """LoRA whose B learns at `ratio` times the rate of A (Hayou et al. 2024, arXiv:2402.12354).

    `hparams.lr` is the rate of A and of all else that trains.
    """

    ratio: float = within(16.0, above=0)

    def edit(self, site: Site) -> Edit:
        """Return the edit of one weight, or of the rows of one."""
        edit = super().edit(site)
        edit.lr_factors = {"lora_B": self.ratio}
        return edit

"""Adapter+: adapters behind the blocks, with a scale per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.base.config import within
from segsweep.peft.adapter_parallel import AdapterParallel, Position, Scaling


@dataclass
class AdapterPlus(AdapterParallel):
    """x + scale * DropPath(up(GELU(down(x)))) behind every block, a scale per channel.

    Adapter+ (Steitz and Roth 2024, arXiv:2406.06820; vit_adapter.py of its release). Weights
    are N(0, 0.01) cut at two deviations (Houlsby et al. 2019), biases 0: it starts near the base,
    not at it. Adds 2dh + h + 2d parameters per block, h = `hidden`, the paper's r.

    That study's other positions are those of `position`; its `pfeiffer` is `post` with `norm=in`
    and `scaling=learned`.
    """

    init: ClassVar[str] = "houlsby"
    activation: ClassVar[str] = "gelu"
    eps: ClassVar[float] = 1e-6  # as the norms of ViT

    position: Position = Position["post"]
    hidden: int = within(8, least=1)
    scaling: Scaling = Scaling.channel
    scale: float = within(1.0, above=0)
    dropout: float = within(0.0, below=1)
    drop_path: float = within(0.1, below=1)

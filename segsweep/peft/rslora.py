"""Rank-stabilised low-rank adaptation."""

from __future__ import annotations

from dataclasses import dataclass

from segsweep.peft.lora import LoRA


@dataclass
class RsLoRA(LoRA):
    """LoRA scaled by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2).

    alpha stays while the rank is swept, so that edits of every rank learn alike.
    """

    alpha: float = 8.0

    @property
    def scale(self) -> float:
        """The factor alpha / sqrt(rank) of the edit."""
        return super().scale * self.rank**0.5

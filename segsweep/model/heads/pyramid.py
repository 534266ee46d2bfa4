"""Heads without queries: a neck makes levels of the backbone's maps, layers read all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from segsweep.model.heads.base import Head

if TYPE_CHECKING:
    import torch

    from segsweep.data.loader import Target
    from segsweep.model.necks.base import Neck


class PyramidHead(Head):
    """The neck, and what a subclass makes of its levels.

    Parameters of the subclass have the official names of its head.
    """

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Maps (B, C_i, H_i, W_i) of the backbone -> raw outputs; targets make no difference"""
        return self.read(self.neck(features))

    def read(self, levels: list[Tensor]) -> Any:
        """Levels (B, C_l, H_l, W_l), fine ones first -> raw outputs"""
        raise NotImplementedError

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw the layer of the classes anew."""
        raise NotImplementedError

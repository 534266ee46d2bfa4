"""Seams: named places in a model that a fine-tuning method may fill."""

from __future__ import annotations

from torch import Tensor, nn


class Seam(nn.Module):
    """A place after a sublayer: the identity until a method fills it.

    A seam has no parameters and no entries in the state dict, so a model with empty seams has
    the names of the published checkpoints.

    Args:
        width: C, the number of channels of the tokens that pass.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.filling: nn.Module | None = None

    def forward(self, y: Tensor, residual: Tensor) -> Tensor:
        """Pass the sublayer's output y and its input stream: (B, N, C), (B, N, C) -> (B, N, C)."""
        return y if self.filling is None else self.filling(y, residual)

    def extra_repr(self) -> str:
        """Show the width in the printed model."""
        return str(self.width)

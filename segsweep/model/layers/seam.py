"""Seams: named places in a model that a fine-tuning method may fill."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class Seam(nn.Module):
    """A place after a sublayer: the identity until a method fills it.

    A seam has no parameters and no entries in the state dict, so a model with empty seams has
    the names of the published checkpoints. A filling may leave losses of its own in a forward of
    training, `auxiliary = {"balance": scalar}`, which are added to that of the model.

    Args:
        width: C, the number of channels of the tokens that pass.
    """

    gives_grid: ClassVar[bool] = False  # whether it tells where tokens are in the image

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


def seams(model: nn.Module) -> dict[str, Seam]:
    """Find all seams of a model by their dotted names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Seam)}


def auxiliary_losses(model: nn.Module) -> dict[str, Tensor]:
    """Take away what modules left as losses of their own, scalars, and sum them by name."""
    losses: dict[str, Tensor] = {}
    for module in model.modules():
        if left := vars(module).get("auxiliary"):
            vars(module)["auxiliary"] = None
            for name, loss in left.items():
                losses[name] = losses[name] + loss if name in losses else loss
    return losses

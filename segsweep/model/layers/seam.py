"""Seams: named places in a model that a fine-tuning method may fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass
class Tokens:
    """Where the tokens (B', N, C) are that pass a seam: N = prefix + rows * columns of the grid.

    They are those of B whole images, or of all their windows, where those of an image follow each
    other (B' = B * windows).
    """

    grid: tuple[int, int]  # rows and columns of the map, or of one window of it
    prefix: int = 0  # tokens ahead that have no place: class token, registers, prompts
    prompts: int = 0  # how many of the prefix, its last, are prompts that a method has added
    block: int = 0  # index of the block, 0 .. L-1
    images: int = 1  # B
    image: Tensor | None = None  # as the patch embedding took them, (B, 3, height, width)
    embedded: Tensor | None = None  # patch embedding before the position code, (B, H, W, C)
    outputs: Sequence[Tensor] = ()  # for the place `side` alone: input of block 0, all outputs
    shared: nn.Module | None = None  # what fills the place `shared` of the host
    computed: dict[str, Any] = field(default_factory=dict)  # kept by fillings for one forward pass


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

    def forward(self, y: Tensor, residual: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Pass the sublayer's output y and its input stream: (B, N, C), (B, N, C) -> (B, N, C)."""
        return y if self.filling is None else self.filling(y, residual, tokens)

    def extra_repr(self) -> str:
        """Show the width in the printed model."""
        return str(self.width)


class Place(Seam):
    """A seam that is told where its tokens are."""

    gives_grid: ClassVar[bool] = True


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

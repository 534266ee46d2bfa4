"""What every head answers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.data.loader import Target


class Head(nn.Module):
    """Everything behind the backbone: from its maps to raw outputs, and to what is found.

    The raw outputs of a head are of a type of its own, which its criterion knows, too.
    """

    @property
    def meanings(self) -> Mapping[str, str]:
        """What `tensors` are, in words."""
        return {}

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Maps (B, C_i, H_i, W_i) of the backbone -> raw outputs; targets are those of training"""
        raise NotImplementedError

    def predict(self, output: Any, views: Sequence[View], least: float = 0.0) -> list[Any]:
        """Return what is found on each image, at its original size: see `segsweep.model.found`.

        Nothing need be found below the score `least`, but the best.
        """
        raise NotImplementedError

    def tensors(self, output: Any) -> dict[str, Tensor]:
        """Return the raw outputs by name, (B, ...) each, as exported programs give them."""
        raise NotImplementedError

    def aligned(self, output: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `tensors` in the order of those that they are to equal, where order is free."""
        return output

    def only_pixels(self) -> None:
        """Let what is found end with its pixels, for good: so published programs are timed."""

    def fix_texts(self) -> None:
        """Leave out what only serves to encode the texts of the classes, for good."""

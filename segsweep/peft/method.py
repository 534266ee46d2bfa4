"""What every fine-tuning method declares: what it trains and what it adds to the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segsweep.base.config import Choice, outside

if TYPE_CHECKING:
    from torch import nn

Roles = dict[str, list[str]]
"""A model family's names for groups of its weights and seams, each a list of patterns."""


@dataclass
class Method(Choice):
    """One word of `conf/peft`: schema, implementation and yaml target in one class.

    A new method overrides `inject` (edit weights, fill seams) and `size` (its parameter count
    from its paper's formula); a choice of weights that train as they are needs a yaml alone.
    """

    lr: float = outside(1e-3)
    """Learning rate that `hparams.lr` follows unless given; no part of a run's identity itself."""
    reference: bool = outside(False)
    """Whether tables and figures compare the other methods with this one."""
    train: list[str] = field(default_factory=list)
    """Weights of the base that are trained: roles of the model, or patterns of dotted names."""

    @property
    def identity(self) -> bool:
        """Whether the untrained method leaves the model's outputs unchanged."""
        return True

    def inject(self, model: nn.Module, roles: Roles) -> dict[str, tuple[int, ...]]:
        """Add the method's parameters to a frozen model, return the places' names and shapes."""
        return {}

    def size(self, shape: tuple[int, ...]) -> int:
        """Count the parameters that the method adds at a place of this shape."""
        return 0

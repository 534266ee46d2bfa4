"""Training a part of the base's own weights: full head, decoder only, embeddings only, nothing."""

from __future__ import annotations

from dataclasses import dataclass

from segsweep.peft.method import Method


@dataclass
class Select(Method):
    """The weights named by `train` are trained as they are, nothing is added."""

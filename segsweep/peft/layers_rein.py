"""The modules of Rein: learned tokens that refine what a block gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from segsweep.model.layers.block import joined
from segsweep.model.layers.seam import Tokens


class Refinement(nn.Module):
    """f + scale W_f(f + S' W_t(T')), S = softmax(f T^t / sqrt(d)), ' without the first of m tokens.

    W_t, W_f and scale are those of `Projections` of this width in the place `shared` of the host.

    Args:
        width: d, channels of the features f.
        length: m, number of learned tokens T.
        rank: r of T = A B; None: T is learned itself.
        patch: pixels of a patch of the image, which scale the first draw.
    """

    def __init__(self, width: int, length: int, rank: int | None, patch: int) -> None:
        super().__init__()
        shapes = [(length, width)] if rank is None else [(length, rank), (rank, width)]
        spread = math.sqrt(6 / (3 * patch + (math.sqrt(rank * width) if rank else width)))
        drawn = [nn.Parameter(torch.empty(shape).uniform_(-spread, spread)) for shape in shapes]
        self.tokens = nn.ParameterList(drawn)
        self.key = str(width)

    def learned(self) -> Tensor:
        """Return T, (m, d)."""
        first, *second = self.tokens
        return first @ second[0] if second else first

    def forward(self, y: Tensor, x: Tensor, tokens: Tokens) -> Tensor:
        """Refine the cells, not the prefix: 2 x (B, N, d) -> (B, N, d)."""
        shared: Any = tokens.shared
        project, learned = shared[self.key], self.learned()
        prefix, cells = y[:, : tokens.prefix], y[:, tokens.prefix :]
        likeness = (cells @ learned.T * cells.shape[2] ** -0.5).softmax(dim=-1)
        feature = likeness[..., 1:] @ project.token_to_feature(learned[1:])
        return joined(prefix, cells + project.scale * project.to_change(cells + feature))


class Projections(nn.Module):
    """What the refinements of a width have in common: W_t and W_f with biases, and the scale.

    Args:
        width: d.
        scale: at the start.
    """

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.token_to_feature = nn.Linear(width, width)  # W_t
        self.to_change = nn.Linear(width, width)  # W_f
        self.scale = nn.Parameter(torch.tensor(scale))

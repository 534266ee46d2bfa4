"""The modules that methods add: edits and fillings by equations, low-rank edits, bottlenecks.

`Edit` and `Filling` serve a method whose equation is a function of tensors, so that its file needs
no module of its own, hence no torch while composing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from segsweep.peft.sites import Site


class Edit(nn.Module):
    """A weight edit by an equation: a function of the weight and of what is learned.

    Args:
        site: the weight, or the third of its rows, that is edited.
        equation: takes the site's rows, and the parameters by name; gives as many rows.
        parameters: of the edit; several edits may share one.
    """

    def __init__(
        self, site: Site, equation: Callable[..., Tensor], **parameters: nn.Parameter
    ) -> None:
        super().__init__()
        self.rows, self.start, self.count = site.rows, site.start, site.shape[0]
        self.equation = equation
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

    def forward(self, weight: Tensor) -> Tensor:
        """Edit the weight, its other rows unchanged: (out, ...) -> (out, ...)."""
        parameters = dict(self.named_parameters())
        if not self.rows:
            return self.equation(weight, **parameters)
        end = self.start + self.count
        edited = self.equation(weight[self.start : end], **parameters)
        return torch.cat((weight[: self.start], edited, weight[end:]))


class Filling(nn.Module):
    """The filling of a seam by an equation.

    Args:
        equation: takes the sublayer's output and its input stream, both (B, N, C), and the
            parameters by name; gives (B, N, C).
        parameters: of the filling.
    """

    def __init__(self, equation: Callable[..., Tensor], **parameters: nn.Parameter) -> None:
        super().__init__()
        self.equation = equation
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

    def forward(self, y: Tensor, stream: Tensor) -> Tensor:
        """Fill the seam: 2 x (B, N, C) -> (B, N, C)."""
        return self.equation(y, stream, **dict(self.named_parameters()))


class LowRank(nn.Module):
    """A weight edit W + scale B A on the rows of a site (Hu et al. 2021, eq. 3).

    A parametrization: the edited weight is computed from the frozen one whenever it is asked
    for, so gradients to A, B and the layer's input are those of the edited weight.

    Args:
        site: the weight, or the third of its rows, that is edited.
        rank: r; A is (r, in) and B is (out, r).
        scale: alpha / r.
        init: `standard` or `xavier`, see `segsweep.peft.lora.LoRA`.
    """

    def __init__(self, site: Site, rank: int, scale: float, init: str) -> None:
        super().__init__()
        rows, columns = site.shape
        self.rows, self.start, self.scale = site.rows, site.start, scale
        self.lora_A = nn.Parameter(site.parameter.new_empty(rank, columns))
        self.lora_B = nn.Parameter(site.parameter.new_empty(rows, rank))
        if init == "xavier":
            nn.init.xavier_uniform_(self.lora_A)
            nn.init.xavier_uniform_(self.lora_B)
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
            nn.init.zeros_(self.lora_B)

    def forward(self, weight: Tensor) -> Tensor:
        """Edit the weight: (out, in) -> (out, in)."""
        delta = self.scale * (self.lora_B @ self.lora_A)
        below = weight.shape[0] - self.start - delta.shape[0]
        return weight + F.pad(delta, (0, 0, self.start, below))


class Bottleneck(nn.Module):
    """up(ReLU(down(x))) with biases, (..., d) -> (..., h) -> (..., d)."""

    def __init__(self, width: int, hidden: int, init: str) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        for layer in (self.down, self.up):
            _init(layer, init)
        if init == "zero_up":
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself: (B, N, C) -> (B, N, C)."""
        return self.up(self.down(x).relu())


class Bottlenecks(nn.ModuleList):
    """The filling of a seam: x <- bottleneck(x) + residual, from x = y, once per repetition.

    Args:
        width: d, channels of the tokens.
        hidden: h, channels of the bottleneck.
        repeats: I, bottlenecks in a row.
        residual: `kappa` (input stream), `lambda` (output y) or `kappa+lambda` (their sum).
        init: see `segsweep.peft.adapter.Adapter`.
    """

    def __init__(self, width: int, hidden: int, repeats: int, residual: str, init: str) -> None:
        super().__init__(Bottleneck(width, hidden, init) for _ in range(repeats))
        self.residual = residual

    def forward(self, y: Tensor, stream: Tensor) -> Tensor:
        """Adapt the sublayer's output y given its input stream: 2 x (B, N, C) -> (B, N, C)."""
        residual = {"kappa": stream, "lambda": y, "kappa+lambda": stream + y}[self.residual]
        x = y
        for bottleneck in self:
            x = bottleneck(x) + residual
        return x


def _init(layer: nn.Linear, init: str) -> None:
    """Draw the weight, zero the bias."""
    nn.init.zeros_(layer.bias)
    if init == "zero_up":
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    elif init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "bert":
        nn.init.normal_(layer.weight, std=0.02)
    else:  # near_identity
        nn.init.trunc_normal_(layer.weight, std=1e-3, a=-2e-3, b=2e-3)

"""The modules that methods add: edits and fillings by equations, bottlenecks.

`Edit` and `Filling` serve a method whose equation is a function of tensors, so that its file needs
no module of its own, hence no torch while composing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from segsweep.model.layers.seam import Tokens
    from segsweep.peft.sites import Site


class Equation(nn.Module):
    """A function of tensors, the last of which are learned."""

    def __init__(self, equation: Callable[..., Tensor], **parameters: nn.Parameter) -> None:
        super().__init__()
        self.equation = equation
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

    def compute(self, *tensors: Tensor) -> Tensor:
        """Evaluate it on tensors of a model, and the parameters by name."""
        return self.equation(*tensors, **dict(self.named_parameters()))


class Edit(Equation):
    """A weight edit by an equation, computed from the frozen weight whenever that is asked for.

    Args:
        site: the weight, or the third of its rows, that is edited.
        equation: takes the site's rows, and the parameters by name; gives as many rows.
        parameters: of the edit; several edits may share one.
    """

    def __init__(
        self, site: Site, equation: Callable[..., Tensor], **parameters: nn.Parameter
    ) -> None:
        super().__init__(equation, **parameters)
        self.rows, self.start, self.end = site.rows, site.start, site.start + site.shape[0]

    def forward(self, weight: Tensor) -> Tensor:
        """Edit the weight, its other rows unchanged: (out, ...) -> (out, ...)."""
        if not self.rows:
            return self.compute(weight)
        edited = self.compute(weight[self.start : self.end])
        return torch.cat((weight[: self.start], edited, weight[self.end :]))


class Filling(Equation):
    """The filling of a seam by an equation.

    Args:
        equation: takes the sublayer's output and its input stream, both (B, N, C), and the
            parameters by name; gives (B, N, C).
        parameters: of the filling.
    """

    def forward(self, y: Tensor, stream: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Fill the seam: 2 x (B, N, C) -> (B, N, C)."""
        return self.compute(y, stream)


def low_rank(site: Site, rank: int, scale: float, init: str) -> Edit:
    """Return the edit W + scale B A on the rows of a site (Hu et al. 2021, eq. 3).

    Args:
        site: the weight, or the third of its rows, that is edited.
        rank: r; A is (r, in) and B is (out, r).
        scale: alpha / r.
        init: `standard` or `xavier`, see `segsweep.peft.lora.LoRA`.
    """
    rows, columns = site.shape
    down = nn.Parameter(site.parameter.new_empty(rank, columns))
    up = nn.Parameter(site.parameter.new_empty(rows, rank))
    if init == "xavier":
        nn.init.xavier_uniform_(down)
        nn.init.xavier_uniform_(up)
    else:
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        nn.init.zeros_(up)

    def edited(weight: Tensor, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        return weight + scale * (lora_B @ lora_A)

    return Edit(site, edited, lora_A=down, lora_B=up)


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

    def forward(self, y: Tensor, stream: Tensor, tokens: Tokens | None = None) -> Tensor:
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

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
from torchvision.ops import StochasticDepth

if TYPE_CHECKING:
    from segsweep.model.layers.seam import Tokens
    from segsweep.peft.sites import Site


class Equation(nn.Module):
    """A function of tensors of a model and of tensors of its own.

    Its own parameters are learned, `lr_factors` says of some by name how many times faster than
    all else (`run.module.parameter_groups`); other tensors of its own stay as they are, and are
    kept with what is learned.
    """

    def __init__(self, equation: Callable[..., Tensor], **own: Tensor) -> None:
        super().__init__()
        self.equation = equation
        self.lr_factors: dict[str, float] = {}
        for name, tensor in own.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def compute(self, *tensors: Tensor) -> Tensor:
        """Evaluate it on tensors of a model, and its own by name."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return self.equation(*tensors, **own)


class Edit(Equation):
    """A weight edit by an equation, computed from the frozen weight whenever that is asked for.

    Args:
        site: the weight, or the third of its rows, that is edited.
        equation: takes the site's rows, and the edit's own tensors by name; gives as many rows.
        own: parameters and other tensors of the edit; several edits may share one.
    """

    def __init__(self, site: Site, equation: Callable[..., Tensor], **own: Tensor) -> None:
        super().__init__(equation, **own)
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
            filling's own tensors by name; gives (B, N, C).
        own: parameters and other tensors of the filling.
    """

    def forward(self, y: Tensor, stream: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Fill the seam: 2 x (B, N, C) -> (B, N, C)."""
        return self.compute(y, stream)


def factors(site: Site, rank: int, init: str) -> dict[str, nn.Parameter]:
    """Draw the factors of a low-rank edit of a site: `lora_A` (r, in) and `lora_B` (out, r).

    `init` is `standard` or `xavier`, see `segsweep.peft.lora.LoRA`.
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
    return {"lora_A": down, "lora_B": up}


class Bottleneck(nn.Module):
    """up(Drop(f(down(x)))) with biases, (..., d) -> (..., h) -> (..., d).

    Args:
        width: d, channels of the tokens.
        hidden: h, channels of the bottleneck.
        init: see `segsweep.peft.adapter.Adapter`, or `houlsby`: N(0, 0.01) cut at two deviations.
        activation: f.
        dropout: probability that a hidden value is dropped in training.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        init: str,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.activation, self.dropout = activation, nn.Dropout(dropout)
        for layer in (self.down, self.up):
            _init(layer, init)
        if init == "zero_up":
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself: (B, N, C) -> (B, N, C)."""
        return self.up(self.dropout(self.activation(self.down(x))))


class Branch(nn.Module):
    """The filling y + norm_out(scale * DropPath(bottleneck(norm_in(x)))) of a place.

    Args:
        bottleneck: what is added to the sublayer's output y.
        of_stream: whether x is the input stream, so that the branch is parallel to the sublayer,
            and not y.
        scale: a number, or what is learned: (1,) or (C,).
        norm_in: applied to x; None: nothing is.
        norm_out: applied to the result; None: nothing is.
        drop_path: probability that an image has no branch in training (Huang et al. 2016,
            arXiv:1603.09382).
    """

    def __init__(
        self,
        bottleneck: Bottleneck,
        of_stream: bool,
        scale: float | nn.Parameter,
        norm_in: nn.Module | None = None,
        norm_out: nn.Module | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.bottleneck, self.of_stream, self.scale = bottleneck, of_stream, scale
        self.norm_in, self.norm_out = norm_in or nn.Identity(), norm_out or nn.Identity()
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, y: Tensor, stream: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Add the branch to the sublayer's output y: 2 x (B, N, C) -> (B, N, C)."""
        x = self.norm_in(stream if self.of_stream else y)
        return y + self.norm_out(self.scale * self.drop_path(self.bottleneck(x)))


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
    else:
        std = {"houlsby": 1e-2, "near_identity": 1e-3}[init]
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)

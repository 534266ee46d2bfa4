"""The modules of Conv-LoRA: a gate that sends every sample to one expert, and the experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.block import joined

if TYPE_CHECKING:
    from segsweep.model.layers.seam import Tokens

BALANCE = 0.01  # weight of the balancing loss
LEAST_NOISE = 0.01  # what the deviation of a logit is at least


class Gate(nn.Module):
    """Noisy top-1 gate (Shazeer et al. 2017, arXiv:1701.06538, section 2.1 and appendix A).

    The logits of a pooled sample g are g W_g, in training g W_g + n (softplus(g W_n) + 0.01) with
    n ~ N(0, 1) of torch's global generator. The expert of the highest one is chosen; of equals, as
    all are before training, that of the lowest index. In training it leaves the balancing loss
    0.01 (CV^2(importance) + CV^2(load)): of each expert, sums over the samples of its gates, and of
    its chances to be chosen if its noise were drawn anew.

    Args:
        rank: r, channels of a pooled sample.
        experts: M.
        switch: gates are the softmax over all experts, else 1 for the chosen one and 0 for others.
    """

    def __init__(self, rank: int, experts: int, switch: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rank, experts))
        self.noise = nn.Parameter(torch.zeros(rank, experts))
        self.switch = switch

    def forward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Choose: (B', r) -> index of the expert (B',) int64, its gate (B',)."""
        clean = logits = logits_of(g, self.weight)
        deviation = F.softplus(logits_of(g, self.noise)) + LEAST_NOISE
        if self.training:
            logits = clean + deviation * torch.randn_like(clean)
        expert = logits.argmax(1, keepdim=True)  # the first of equals
        gates = logits.softmax(1) if self.switch else chosen_alone(logits, expert)
        if self.training:
            load = chances(clean, logits, deviation).sum(0)
            self.auxiliary = {"experts": BALANCE * (variation(gates.sum(0)) + variation(load))}
        return expert[:, 0], gates.gather(1, expert)[:, 0]


def logits_of(g: Tensor, weight: Tensor) -> Tensor:
    """g W in the precision of W, for a matrix product would be rounded under autocast.

    (B', r), (r, M) -> (B', M)
    """
    return (g[:, :, None] * weight).sum(1)


def chosen_alone(logits: Tensor, expert: Tensor) -> Tensor:
    """1 for the chosen expert, 0 for all others: (B', M), (B', 1) -> (B', M)"""
    return torch.zeros_like(logits).scatter(1, expert, 1.0)


def chances(clean: Tensor, logits: Tensor, deviation: Tensor) -> Tensor:
    """P that an expert has the highest logit if its own noise is drawn anew (equation 9).

    3 x (B', M) -> (B', M)
    """
    if logits.shape[1] == 1:
        return torch.ones_like(clean)
    first, second = logits.topk(2).values.split(1, 1)
    others = torch.where(logits > second, second, first)  # the highest of all others
    return torch.special.ndtr((clean - others) / deviation)


def variation(x: Tensor) -> Tensor:
    """Squared coefficient of variation, of the unbiased variance; 0 of one value: (M,) -> ()"""
    return x.var(correction=min(1, len(x) - 1)) / (x.mean().square() + 1e-10)


class Expert(nn.Conv2d):
    """GELU(conv 3 x 3) at `scale` times the resolution, bicubic there and back."""

    def __init__(self, rank: int, scale: int) -> None:
        super().__init__(rank, rank, 3, padding=1)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """(B', r, H, W) -> (B', r, H, W)"""
        if self.scale == 1:
            return F.gelu(super().forward(input))
        fine = F.interpolate(input, scale_factor=self.scale, mode="bicubic")
        return F.interpolate(F.gelu(super().forward(fine)), input.shape[2:], mode="bicubic")


class LowRankExperts(nn.Module):
    """The filling of `beside_qkv`: q, k, v + scale B (e + g E(e)), e = A u, E the chosen expert.

    A sample is what attention sees as one: a window, or an image in blocks without. Prefix tokens
    (class token, prompts), which have no place in the map, get the low-rank part alone.

    Args:
        width: 3C, of the queries, keys and values.
        rank: r.
        scale: alpha / r.
        experts: M; expert i works at i times the resolution, i = 1 .. M.
        switch: see `Gate`; g is 1 without.
    """

    def __init__(self, width: int, rank: int, scale: float, experts: int, switch: bool) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(rank, width // 3))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.gate = Gate(rank, experts, switch)
        self.experts = nn.ModuleList(Expert(rank, i + 1) for i in range(experts))
        self.scale = scale
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, y: Tensor, u: Tensor, tokens: Tokens) -> Tensor:
        """(B', N, 3C), (B', N, C) -> (B', N, 3C)"""
        e = F.linear(u, self.lora_A)
        prefix, cells = e[:, : tokens.prefix], e[:, tokens.prefix :]
        cells = cells.transpose(1, 2).unflatten(2, tokens.grid)
        expert, gate = self.gate(cells.mean((2, 3)))
        cells = cells + gate[:, None, None, None].to(cells) * self.given(cells, expert)
        e = joined(prefix, cells.flatten(2).transpose(1, 2))
        return y + self.scale * F.linear(e, self.lora_B)

    def given(self, cells: Tensor, expert: Tensor) -> Tensor:
        """Give each sample what its expert makes of it: (B', r, H, W), (B',) -> (B', r, H, W)"""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # sizes must be known: by all
            every = torch.stack([each(cells) for each in self.experts])
            return every[expert, torch.arange(len(expert), device=expert.device)]
        order = expert.argsort()
        groups = cells[order].split(expert.bincount(minlength=len(self.experts)).tolist())
        parts = zip(self.experts, groups, strict=True)
        given = torch.cat([each(group) for each, group in parts if len(group)])
        return given[order.argsort()]

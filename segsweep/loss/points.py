"""Masks at points: sampling, the choice of uncertain points (Kirillov 2020, PointRend), losses.

Points are (x, y) in [0, 1] of the map they are taken from, whatever its resolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OVERSAMPLE, IMPORTANCE = 3, 0.75  # candidates per point, share of uncertain points
CHUNK = 32  # masks whose candidates are read at once


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps bilinearly, zero outside. (M, C, H, W), (M, P, 2) -> (M, C, P)

    0 and 1 are the outer edges of the border cells, not their centres (`align_corners=False`).
    """
    grid = (2 * points - 1).unsqueeze(1)
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=False).squeeze(2)


def draw_points(masks: int, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw the candidates and the plain points for `uncertain_points`, in this order.

    -> (M, OVERSAMPLE * P, 2), (M, P - IMPORTANCE * P, 2)
    """
    candidates = torch.rand(masks, number * OVERSAMPLE, 2, device=device)
    plain = torch.rand(masks, number - int(number * IMPORTANCE), 2, device=device)
    return candidates, plain


@torch.no_grad()
def uncertain_points(logits: Tensor, candidates: Tensor, plain: Tensor, number: int) -> Tensor:
    """Keep the candidates whose logit is nearest to 0 and add the plain points.

    (M, H, W), (M, R, 2), (M, P - U, 2) -> (M, P, 2), P = `number`, the U uncertain ones first.
    """
    uncertain = []
    # the candidates of all masks at once would leave the cache, and are far more than are kept
    for maps, points in zip(logits.split(CHUNK), candidates.split(CHUNK), strict=True):
        margin = sample(maps.unsqueeze(1), points).squeeze(1).abs()
        chosen = margin.topk(number - plain.shape[1], dim=1, largest=False, sorted=False).indices
        uncertain.append(points.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2)))
    return torch.cat([torch.cat(uncertain), plain], dim=1)


class PointLosses(torch.autograd.Function):
    """Cross entropy and dice loss of each mask at its points.

    apply(logits (M, H, W), points (M, P, 2), truth (M, P)) -> (M,), (M,)

    The gradient is written out to keep only points, probabilities and truth for it: the dense
    masks and the steps between would be the larger part of what the loss keeps.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, points: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both losses; see the class for shapes."""
        at_points = sample(logits.unsqueeze(1), points).squeeze(1)
        bce = F.binary_cross_entropy_with_logits(at_points, truth, reduction="none").mean(1)
        s = at_points.sigmoid()
        total = s.sum(1) + truth.sum(1) + 1
        share = (2 * (s * truth).sum(1) + 1) / total
        ctx.save_for_backward(points, truth, s, total, share)
        ctx.shape = logits.shape
        return bce, 1 - share

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_bce: Tensor, grad_dice: Tensor
    ) -> tuple[Tensor, None, None]:
        """Give the gradient to the logits."""
        points, truth, s, total, share = ctx.saved_tensors
        grad = (s - truth) * (grad_bce / s.shape[1])[:, None]
        grad += (share[:, None] - 2 * truth) * (s - s * s) * (grad_dice / total)[:, None]
        return _spread(grad, points, ctx.shape), None, None


def _spread(values: Tensor, points: Tensor, shape: torch.Size) -> Tensor:
    """Transpose of `sample`: give values back to the cells they were read from. -> (M, H, W)"""
    maps = values.new_zeros(()).expand(shape).unsqueeze(1)  # only its shape counts
    grid = (2 * points - 1).unsqueeze(1)
    zeros_outside, only_maps = (0, 0, False), (True, False)
    grad, _ = torch.ops.aten.grid_sampler_2d_backward(
        values[:, None, None], maps, grid, *zeros_outside, only_maps
    )
    return grad.squeeze(1)

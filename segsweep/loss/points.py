"""Masks at points: bilinear sampling and the choice of uncertain points (Kirillov 2020, PointRend).

Points are (x, y) in [0, 1] of the map they are taken from, whatever its resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 32  # masks


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps bilinearly, zero outside. (M, C, H, W), (M, P, 2) -> (M, C, P)

    A map of one colour stretches over pixel edges, not centres (`align_corners=False`).
    """
    grid = (2 * points - 1).unsqueeze(1)
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=False).squeeze(2)


def draw_points(
    masks: int, number: int, oversample: float, importance: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw the candidates and the plain points for `uncertain_points`, in this order.

    -> (M, oversample * P, 2), (M, P - importance * P, 2)
    """
    candidates = torch.rand(masks, int(number * oversample), 2, device=device)
    plain = torch.rand(masks, number - int(number * importance), 2, device=device)
    return candidates, plain


@torch.no_grad()
def uncertain_points(logits: Tensor, candidates: Tensor, plain: Tensor, number: int) -> Tensor:
    """Keep the candidates whose logit is nearest to 0 and add the plain points.

    (M, H, W), (M, R, 2), (M, P - U, 2) -> (M, P, 2), P = `number`, the U uncertain ones first.
    """
    kept = []
    # in chunks that stay in the cache: all candidates of all masks are many times the masks
    for maps, points in zip(logits.split(CHUNK), candidates.split(CHUNK), strict=True):
        margin = sample(maps.unsqueeze(1), points).squeeze(1).abs()
        chosen = margin.topk(number - plain.shape[1], dim=1, largest=False, sorted=False).indices
        kept.append(points.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2)))
    return torch.cat([torch.cat(kept), plain], dim=1)

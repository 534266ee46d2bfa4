"""Plain formulations that fast code is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def read_by_level(
    value: Tensor, shapes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """What `deformable.read` gives, sampled level by level with `grid_sample`.

    (B, S, heads, D), three times (B, N, heads * L * P) -> (B, N, heads * D)
    """
    batch, _, heads, dim = value.shape
    queries = x.shape[1]
    places = torch.stack((x, y), dim=-1).view(batch, queries, heads, len(shapes), -1, 2)
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=-1)
    samples = []
    for level, (height, width) in enumerate(shapes):
        grid = 2 * places[:, :, :, level] / places.new_tensor((width, height)) - 1
        grid = grid.transpose(1, 2).flatten(0, 1)  # (B * heads, N, P, 2)
        source = maps[level].unflatten(-1, (height, width))
        samples.append(F.grid_sample(source, grid, align_corners=False))
    weights = weights.view(batch, queries, heads, -1).transpose(1, 2).flatten(0, 1)
    out = (torch.cat(samples, dim=-1) * weights[:, None]).sum(-1)  # (B * heads, D, N)
    return out.view(batch, heads * dim, queries).transpose(1, 2)

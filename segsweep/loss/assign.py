"""Which anchors stand for which objects: adaptive training sample selection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segsweep.loss.boxes import iou, xyxy_to_cxcywh

INSIDE = 0.01  # pixels from every side
EXACT = "donot_use_mm_for_euclid_dist"


def assign(anchors: Sequence[Tensor], boxes: Tensor, topk: int = 9) -> Tensor:
    """Choose the box that each anchor stands for (Zhang 2020, arXiv:1912.02424, algorithm 1).

    Levels of anchors (N_l, 4) and boxes (G, 4), x1 y1 x2 y2 in pixels -> (N,) int64, G for none.

    Candidates of a box are the anchors of each level whose centres are nearest. Of these it has
    those whose centres are inside and whose overlap is at least the mean of all plus the deviation.
    Of several boxes an anchor takes the one it overlaps most, of equals the first. mmdet's
    ATSSAssigner; nothing here is larger than the distances of one level.
    """
    nearest, first = [], 0
    middles = xyxy_to_cxcywh(boxes)[:, :2]
    for level in anchors:
        distances = torch.cdist(middles, xyxy_to_cxcywh(level)[:, :2], compute_mode=EXACT)
        count = min(topk, len(level))
        nearest.append(first + distances.topk(count, largest=False).indices)
        first += len(level)
    nothing = torch.full((first,), len(boxes), device=boxes.device)
    if not len(boxes):
        return nothing
    candidates = torch.cat(nearest, dim=1)  # (G, C)
    squares = torch.cat(list(anchors))[candidates]
    centres = xyxy_to_cxcywh(squares)[..., :2]
    overlaps, _ = iou(squares, boxes[:, None])
    enough = overlaps >= (overlaps.mean(1) + overlaps.std(1))[:, None]
    margins = torch.cat([centres - boxes[:, None, :2], boxes[:, None, 2:] - centres], dim=-1)
    chosen = enough & (margins.amin(-1) > INSIDE)
    # no choice is counted, for which a GPU would be waited: what is not chosen changes nothing
    anchor, overlap = candidates.flatten(), overlaps.where(chosen, 0).flatten()
    best = overlaps.new_zeros(first).scatter_reduce(0, anchor, overlap, "amax")
    largest = chosen & (overlaps == best[candidates])
    box = torch.arange(len(boxes), device=boxes.device)[:, None].where(largest, len(boxes))
    return nothing.scatter_reduce(0, anchor, box.flatten(), "amin")

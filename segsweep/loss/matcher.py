"""One-to-one matching of queries and targets at least cost (Carion 2020).

Mask logits at points are `embedding . sample(features)`: bilinear sampling is linear in the
features, so that the dense masks of all queries are never made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.loss.boxes import cxcywh_to_xyxy, generalized_iou
from segsweep.loss.pairs import Pairs
from segsweep.loss.points import sample

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.loss.classes import ClassLoss
    from segsweep.loss.outputs import PredictionSets


def box_costs(boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distance and negative generalized IoU. (..., Q, 4), (n, 4) cxcywh -> (..., Q, n) twice"""
    boxes = boxes.unsqueeze(-2)
    l1 = (boxes - truth).abs().sum(-1)
    return l1, -generalized_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth))


def mask_costs(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice cost over shared points. (Q, P), (n, P) -> (Q, n), (Q, n)"""
    # -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x
    bce = F.softplus(logits).mean(1, keepdim=True) - logits @ truth.T / logits.shape[1]
    s = logits.sigmoid()
    dice = 1 - (2 * s @ truth.T + 1) / (s.sum(1, keepdim=True) + truth.sum(1) + 1)
    return bce, dice


def point_logits(embeddings: Tensor, features: Tensor, points: Tensor) -> Tensor:
    """Mask logits of queries at shared points. (Q, C), (C, H, W), (P, 2) -> (Q, P)"""
    return embeddings @ sample(features[None], points[None])[0]


@torch.no_grad()
def match(
    sets: PredictionSets,
    features: Tensor,
    targets: Sequence[Target],
    points: Sequence[Tensor],
    weights: Mapping[str, float],
    classify: ClassLoss,
) -> Pairs:
    """Match the queries of every prediction set with the targets of their image.

    `features` (B, C, h, w), `points` S x (B, P, 2) shared by all masks of an image, `weights` of
    the costs `ce` (by `classify`), `mask` and `dice`, and of `bbox` and `giou` where boxes are
    predicted. Raises UserError where a cost is not finite.
    """
    features = features.contiguous(memory_format=torch.channels_last)  # 4x faster to sample
    costs = []
    for b, target in enumerate(targets):
        masks = target.masks[None].float()
        at_points = [
            mask_costs(point_logits(e[b], features[b], p[b]), sample(masks, p[b : b + 1])[0])
            for e, p in zip(sets.embeddings, points, strict=True)
        ]
        bce, dice = (torch.stack(part) for part in zip(*at_points, strict=True))
        terms = {"ce": classify.cost(sets.logits[:, b], target.labels)}
        if sets.boxes is not None:
            terms["bbox"], terms["giou"] = box_costs(sets.boxes[:, b], target.boxes)
        terms |= {"mask": bce, "dice": dice}
        costs.append(sum(weights[name] * cost for name, cost in terms.items()))
    return assign(costs)


def assign(costs: Sequence[Tensor]) -> Pairs:
    """Solve every set of every image. Per image (S, Q, n) -> pairs ordered by query in an image

    All costs travel to the host at once. Raises UserError where a cost is not finite.
    """
    offsets = np.cumsum([0, *(cost.shape[2] for cost in costs)])
    host = torch.cat([cost.flatten() for cost in costs]).cpu()
    blocks = [
        part.view(cost.shape).numpy()
        for part, cost in zip(host.split([c.numel() for c in costs]), costs, strict=True)
    ]
    for image, block in enumerate(blocks):
        if not np.isfinite(block).all():
            raise UserError(
                f"the matching cost of image {image} of the batch is not finite: training has "
                "diverged or its input holds NaN; lower hparams.lr or train in float32"
            )
    solved = [[linear_sum_assignment(cost) for cost in block] for block in blocks]
    query = np.concatenate([[q for q, _ in sets] for sets in solved], axis=1)
    target = np.concatenate(
        [[t + offset for _, t in sets] for sets, offset in zip(solved, offsets, strict=False)],
        axis=1,
    )
    pairs = torch.from_numpy(np.stack([query, target])).long().to(costs[0].device)
    return Pairs(pairs[0], pairs[1], [len(sets[0][0]) for sets in solved])

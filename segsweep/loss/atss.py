"""The loss of ATSS (Zhang 2020, arXiv:1912.02424) as mmdet computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.geometry import DIVISOR
from segsweep.loss.anchors import centrality, decode, square_anchors
from segsweep.loss.assign import assign
from segsweep.loss.base import BaseCriterion, over_ranks
from segsweep.loss.boxes import cxcywh_to_xyxy, generalized_iou
from segsweep.loss.focal import focal_sum

if TYPE_CHECKING:
    from segsweep.data.geometry import Size
    from segsweep.data.loader import Target

WEIGHTS = {"loss_cls": 1.0, "loss_bbox": 2.0, "loss_centerness": 1.0}
EPS = 1e-7  # of areas that are divided by


class ATSSOutput(NamedTuple):
    """What is said of the anchor of every cell, level by level."""

    logits: list[Tensor]  # (B, K, H_l, W_l) of independent classes
    deltas: list[Tensor]  # (B, 4, H_l, W_l) offsets of the box, see `anchors.decode`
    centerness: list[Tensor]  # (B, 1, H_l, W_l) logits of `anchors.centrality`

    @property
    def grids(self) -> list[Size]:
        """Height and width of each level."""
        return [(level.shape[2], level.shape[3]) for level in self.logits]


class Assignment(NamedTuple):
    """What the N anchors of an image stand for, or those of a batch with B in front."""

    valid: Tensor  # (N,) bool: cells that the image has, whatever its batch is padded to
    labels: Tensor  # (N,) int64, K where there is nothing
    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels, zeros where there is nothing


class ATSSCriterion(BaseCriterion):
    """Focal loss of classes, GIoU of boxes weighted by centerness, cross entropy of centerness.

    `strides` are those of the levels; `topk` anchors of each are candidates for an object.
    """

    def __init__(self, classes: int, strides: Sequence[float], topk: int = 9) -> None:
        super().__init__()
        self.classes, self.strides, self.topk = classes, strides, topk

    def forward(self, output: ATSSOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the three terms, of all levels together; see `BaseCriterion`."""
        return {name: terms.sum() for name, terms in self.by_level(output, targets).items()}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms by their weights. -> ()"""
        return super().total({name: WEIGHTS[name] * term for name, term in terms.items()})

    def by_level(self, output: ATSSOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the three terms of each level. -> (L,) each"""
        with torch.autocast(output.logits[0].device.type, enabled=False):
            anchors = square_anchors(output.grids, self.strides, output.logits[0].device)
            assignment = self.assignment(anchors, output.grids, targets)
            counts = [len(level) for level in anchors]
            parts = zip(*(tensor.split(counts, dim=1) for tensor in assignment), strict=True)
            levels = zip(anchors, map(Assignment._make, parts), *output, strict=True)
            sums = torch.stack([*starmap(self._level, levels)])
            classes, boxes, centerness, weight = sums.unbind(1)
            found = (assignment.labels < self.classes).sum(1).clamp(min=1).sum()
            average = over_ranks(found, weight.device)
            central = over_ranks(weight.sum(), weight.device).clamp(min=1)
        return {
            "loss_cls": classes / average,
            "loss_bbox": boxes / central,
            "loss_centerness": centerness / average,
        }

    def assignment(
        self, anchors: Sequence[Tensor], grids: Sequence[Size], targets: Sequence[Target]
    ) -> Assignment:
        """Find what each anchor of each image stands for. -> B images"""
        images = [self._assigned(anchors, grids, target) for target in targets]
        return Assignment(*map(torch.stack, zip(*images, strict=True)))

    def _assigned(
        self, anchors: Sequence[Tensor], grids: Sequence[Size], target: Target
    ) -> Assignment:
        """The same of one image, which is padded to a multiple of DIVISOR for itself."""
        height, width = target.size or [round(side * self.strides[0]) for side in grids[0]]
        padded = [-(-side // DIVISOR) * DIVISOR for side in (height, width)]
        parts, first = [], 0
        for grid, stride in zip(grids, self.strides, strict=True):
            rows, columns = (
                sum(place * stride < side for place in range(count))
                for count, side in zip(grid, padded, strict=True)
            )
            numbers = torch.arange(first, first + grid[0] * grid[1], device=anchors[0].device)
            parts.append(numbers.view(grid)[:rows, :columns].flatten())
            first += len(numbers)
        boxes = cxcywh_to_xyxy(target.boxes.float())
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        joined, whole = torch.cat(list(anchors)), torch.cat(parts)
        index = target.labels.new_full((first,), len(boxes))
        index[whole] = assign([joined[part] for part in parts], boxes, self.topk)
        valid = torch.zeros_like(index, dtype=torch.bool).index_fill(0, whole, True)
        labels = torch.cat([target.labels, index.new_tensor([self.classes])])
        return Assignment(valid, labels[index], torch.cat([boxes, boxes.new_zeros(1, 4)])[index])

    def _level(
        self,
        anchors: Tensor,
        assigned: Assignment,
        logits: Tensor,
        deltas: Tensor,
        centerness: Tensor,
    ) -> Tensor:
        """Sums of one level: of the terms, and of the weights of boxes. -> (4,)"""
        valid, labels, boxes = assigned
        # a GPU is waited for wherever True is counted: once for each choice, not for each use
        seen = valid.nonzero(as_tuple=True)
        classes = focal_sum(cells(logits)[seen], labels[seen])
        positive = (labels < self.classes).nonzero(as_tuple=True)
        true, at = boxes[positive], anchors.expand_as(boxes)[positive]
        weight = centrality(at, true)
        found = decode(at, cells(deltas)[positive])
        unlike = weight * (1 - generalized_iou(found, true, EPS))
        logit = cells(centerness)[positive].squeeze(1)
        central = F.binary_cross_entropy_with_logits(logit, weight, reduction="sum")
        return torch.stack([classes, unlike.sum(), central, weight.sum()])


def cells(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C) float32, row by row as anchors are"""
    return maps.flatten(2).transpose(1, 2).float()

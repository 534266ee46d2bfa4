"""ATSS (Zhang 2020, arXiv:1912.02424): an anchor per cell, its classes, its box, its centerness.

Names, sizes and numbers are those of mmdet's `atss_head.py`. Letters beside those of segmenter.py:
N anchors of all L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from segsweep.loss.anchors import decode, square_anchors
from segsweep.loss.atss import ATSSOutput, cells
from segsweep.loss.boxes import xyxy_to_cxcywh
from segsweep.model.found import Instances
from segsweep.model.heads.pyramid import PyramidHead
from segsweep.model.layers.tower import tower

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.model.necks.base import Neck

STD, PRIOR = 0.01, 0.01  # of weights at the start; probability of a class


@dataclass
class BoxReader:
    """Reads boxes off the anchors: those of a class score above `threshold`, at most `per_level`.

    Their score is that of the class times centerness, without the square root that the first
    program of ATSS takes. What overlaps a better one of its class by more than `nms` is left out;
    at most `per_image` are found.
    """

    threshold: float = 0.05
    nms: float = 0.6
    per_level: int = 1000
    per_image: int = 100

    def read(
        self, anchors: Sequence[Tensor], output: ATSSOutput, b: int, view: View, least: float
    ) -> Instances:
        """Return what is found on image b; see `Head.predict`."""
        maps = ([level[b : b + 1] for level in levels] for levels in output)
        levels = [self._level(*level) for level in zip(anchors, *maps, strict=True)]
        # few by now, and a CPU gives the same on every machine
        scores, labels, boxes = (torch.cat(parts).cpu() for parts in zip(*levels, strict=True))
        (height, width), _, original = view
        scale = boxes.new_tensor([original[1] / width, original[0] / height] * 2)
        boxes = clip_boxes_to_image(boxes, (height, width)) * scale
        real = (boxes[:, 2:] > boxes[:, :2]).all(1).nonzero()[:, 0]
        order = real[scores[real].argsort(descending=True, stable=True)]
        # none suppresses a better one, so those below `least` make no difference
        order = order[: max(1, int((scores[order] >= least).sum()))]
        scores, labels, boxes = scores[order], labels[order], boxes[order]
        kept = class_wise_nms(boxes, scores, labels, self.nms)[: self.per_image]
        return Instances(scores[kept], labels[kept], boxes[kept], None, original)

    def _level(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, centerness: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, classes and boxes of the best pairs of anchor and class of a level."""
        scores = cells(logits)[0].sigmoid()
        sure = scores > self.threshold
        best, order = scores[sure].topk(min(self.per_level, int(sure.sum())))
        anchor, label = sure.nonzero()[order].unbind(1)
        boxes = decode(anchors[anchor], cells(deltas)[0, anchor])
        return best * cells(centerness)[0, anchor, 0].sigmoid(), label, boxes


def class_wise_nms(boxes: Tensor, scores: Tensor, labels: Tensor, most: float) -> Tensor:
    """Choose boxes that overlap no better one of their class by more than `most`, best first.

    (M, 4) xyxy, (M,), (M,) -> (m,) int64. Classes are kept apart by shifting their boxes, which
    single precision would round.
    """
    return batched_nms(boxes.double(), scores.double(), labels, most)


class ATSSHead(PyramidHead):
    """Towers and last layers, shared by all levels; a scale of the offsets for each level."""

    def __init__(
        self,
        neck: Neck,
        classes: int,
        channels: int = 256,
        convs: int = 4,
        groups: int = 32,
        reader: BoxReader | None = None,
    ) -> None:
        super().__init__(neck)
        self.reader = reader or BoxReader()
        self.cls_convs = tower(neck.channels[0], channels, convs, groups)
        self.reg_convs = tower(neck.channels[0], channels, convs, groups)
        self.atss_cls = nn.Conv2d(channels, classes, 3, padding=1)
        self.atss_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.atss_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in neck.strides)
        for part in (self.cls_convs, self.reg_convs, self.atss_reg, self.atss_centerness):
            part.apply(_reset)
        self.reset_classes()

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw the layer of classes anew: each has the probability PRIOR everywhere."""
        _reset(self.atss_cls, generator)
        nn.init.constant_(self.atss_cls.get_parameter("bias"), -math.log(1 / PRIOR - 1))

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        return {
            "logits": "of each anchor and class; scores are their sigmoid times that of centerness",
            "boxes": "of each anchor: centre x, centre y, width, height in parts of the input",
            "centerness": "logit of each anchor: how near to its middle the box is seen from",
        }

    def read(self, levels: list[Tensor]) -> ATSSOutput:
        """Levels (B, C, H_l, W_l), fine ones first -> what is said of each anchor"""
        output = ATSSOutput([], [], [])
        for scale, level in zip(self.scales, levels, strict=True):
            of_box = self.reg_convs(level)
            output.logits.append(self.atss_cls(self.cls_convs(level)))
            output.deltas.append(scale(self.atss_reg(of_box)))
            output.centerness.append(self.atss_centerness(of_box))
        return output

    def predict(
        self, output: ATSSOutput, views: Sequence[View], least: float = 0.0
    ) -> list[Instances]:
        """Return what the reader finds on each image."""
        anchors = self._anchors(output)
        return [self.reader.read(anchors, output, b, view, least) for b, view in enumerate(views)]

    def tensors(self, output: ATSSOutput) -> dict[str, Tensor]:
        """Return `logits` (B, N, K), `boxes` (B, N, 4) and `centerness` (B, N) of the anchors."""
        logits, deltas, centerness = (torch.cat([*map(cells, maps)], dim=1) for maps in output)
        boxes = xyxy_to_cxcywh(decode(torch.cat(self._anchors(output)), deltas))
        height, width = (side * self.neck.strides[0] for side in output.grids[0])
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        return {"logits": logits, "boxes": boxes, "centerness": centerness[..., 0]}

    def _anchors(self, output: ATSSOutput) -> list[Tensor]:
        return square_anchors(output.grids, self.neck.strides, output.logits[0].device)


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)"""
        return x * self.scale


def _reset(module: nn.Module, generator: torch.Generator | None = None) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=STD, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

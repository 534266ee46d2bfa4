"""A tiny model that finds boxes without masks: the word `tiny_boxes`, in a folder of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segsweep.base.words import add_folder
from segsweep.data.base import Subject
from segsweep.data.geometry import View
from segsweep.data.loader import Target
from segsweep.loss.base import BaseCriterion
from segsweep.model.found import Instances
from segsweep.model.heads.pyramid import PyramidHead
from segsweep.model.necks.base import Neck
from segsweep.model.pyramid import Pyramid
from segsweep.model.segmenter import Segmenter

WORD = """
defaults:
  - override /metrics@_global_.metrics: coco_boxes
_target_: tests.small_boxes.TinyBoxes
name: tiny_boxes
backbone:
  name: resnet10t
  layout: timm
  kwargs: {stem_width: 16, channels: [16, 16, 16, 16]}
input: [64, 64]
"""


def tiny_boxes(folder: Path) -> None:
    """Let config groups find the word."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/tiny_boxes.yaml").write_text(WORD)
    add_folder(folder)


class BoxHead(PyramidHead):
    """One box for each cell of the second level: a logit for each class, and its sides."""

    def __init__(self, neck: Neck, classes: int) -> None:
        super().__init__(neck)
        self.stride = neck.strides[1]
        self.boxes = nn.Conv2d(neck.channels[1], classes + 2, 1)

    def read(self, levels: list[Tensor]) -> Tensor:
        return self.boxes(levels[1])  # (B, K + 2, h, w)

    def predict(self, output: Tensor, views: Sequence[View], least: float = 0.0) -> list[Instances]:
        return [self.found(o, view) for o, view in zip(output, views, strict=True)]

    def found(self, output: Tensor, view: View) -> Instances:
        (height, width), _, original = view
        scores, labels = output[:-2].sigmoid().flatten(1).max(0)
        rows, columns = torch.meshgrid(*map(torch.arange, output.shape[1:]), indexing="ij")
        centres = self.stride * (torch.stack([columns, rows], -1).flatten(0, 1) + 0.5)
        half = self.stride * output[-2:].flatten(1).T.sigmoid()
        scale = torch.tensor([original[1] / width, original[0] / height])
        boxes = torch.cat([(centres - half) * scale, (centres + half) * scale], 1)
        order = scores.argsort(descending=True)[:20]
        return Instances(scores[order], labels[order], boxes[order], None, original)


class BoxCriterion(BaseCriterion):
    """Sides like those of the objects, whatever the cell, and no certainty."""

    def forward(self, output: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        wanted = torch.cat([target.boxes[:, 2:] for target in targets]).mean(0)
        sides = output[:, -2:].mean((0, 2, 3)).sigmoid()
        return {
            "loss_box": (sides - wanted).abs().sum(),
            "loss_cls": output[:, :-2].square().mean(),
        }


@dataclass
class TinyBoxes(Pyramid):
    architecture: ClassVar[str] = "tiny boxes"
    tasks: ClassVar[tuple[str, ...]] = ("instances",)
    masks: ClassVar[bool] = False

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        return "none", {}

    def head(self, neck: Neck, subject: Subject) -> PyramidHead:
        return BoxHead(neck, len(subject.texts))

    def criterion(self, neck: Neck, subject: Subject) -> BaseCriterion:
        return BoxCriterion()

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        pass

"""What is found on an image: at its own size instances, or every pixel's class; or its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from segsweep.data.base import BACKGROUND
from segsweep.data.formats import masks
from segsweep.data.geometry import Size


@dataclass
class Instances:
    """Objects found in one image, best first, at the image's original size."""

    scores: Tensor  # (M,)
    labels: Tensor  # (M,) int64
    boxes: Tensor  # (M, 4) x1 y1 x2 y2 in pixels, far side past the last one, not clipped
    rles: list[dict[str, Any]] | None  # M masks; None of a model that finds boxes alone
    size: Size  # of the image

    def above(self, least: float) -> Instances:
        """Return the objects of score `least` and more."""
        sure = self.scores >= least
        kept, rles = sure.nonzero().flatten().tolist(), self.rles
        rles = None if rles is None else [rles[k] for k in kept]
        return Instances(self.scores[sure], self.labels[sure], self.boxes[sure], rles, self.size)

    @cached_property
    def masks(self) -> Tensor | None:
        """The masks as pixels, made when they are asked for, if there are any. (M, H, W) bool"""
        if self.rles is None:
            return None
        pixels = torch.zeros((len(self.rles), *self.size), dtype=torch.bool)
        for mask, rle in zip(pixels, self.rles, strict=True):
            mask[:] = torch.from_numpy(masks.to_mask(rle, self.size))
        return pixels.to(self.scores.device)

    @cached_property
    def coco(self) -> list[dict[str, Any]]:
        """The same in the COCO form: class, score, box [x, y, w, h], RLE if there are masks.

        The metric and the file of predictions share it.
        """
        boxes = self.boxes.cpu().clone()
        boxes[:, 2:] -= boxes[:, :2]
        columns = (self.labels.tolist(), self.scores.tolist(), boxes.tolist())
        found: list[dict[str, Any]] = [
            {"category_id": label, "score": score, "bbox": box}
            for label, score, box in zip(*columns, strict=True)
        ]
        for entry, rle in zip(found, self.rles or (), strict=self.rles is not None):
            entry["segmentation"] = rle
        return found


@dataclass
class SemanticMap:
    """The best class of every pixel of one image, at the image's original size."""

    classes: Tensor  # (H, W) uint8, BACKGROUND where the model itself says that it is none
    scores: Tensor  # (H, W) of these classes, at most 1
    final: bool = False  # whether BACKGROUND stands wherever there is no class

    def above(self, least: float) -> SemanticMap:
        """Return the map: every pixel keeps its class, however sure it is."""
        return self

    def label_map(self, background: bool) -> Tensor:
        """Classes; where a set has `background` and the model does not say where, below 0.5.

        -> (H, W) uint8
        """
        if self.final or not background:
            return self.classes
        return self.classes.masked_fill(self.scores < 0.5, BACKGROUND)


@dataclass
class PictureClass:
    """The class of one image as a whole."""

    scores: Tensor  # (K,) probabilities of all classes

    @property
    def best(self) -> tuple[int, float]:
        """The most probable class, and its probability."""
        score, label = self.scores.max(0)
        return int(label), float(score)

    def above(self, least: float) -> PictureClass:
        """Return the same: every image has a class, however sure it is."""
        return self

"""The task of instances: scored masks and boxes of single objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from segsweep.data.formats import masks
from segsweep.loss.boxes import bitmask, cxcywh_to_xyxy
from segsweep.loss.outputs import Output
from segsweep.task import frames
from segsweep.task.base import Size, Task, View

if TYPE_CHECKING:
    from segsweep.model.segmenter import Resize, Segmenter


@dataclass
class Instances:
    """Objects found in one image, best first, at the image's original size."""

    scores: Tensor  # (M,)
    labels: Tensor  # (M,) int64
    boxes: Tensor  # (M, 4) x1 y1 x2 y2 in pixels, far side past the last one, not clipped
    masks: Tensor  # (M, H, W) bool

    def above(self, least: float) -> Instances:
        """Return the objects of score `least` and more."""
        sure = self.scores >= least
        return Instances(self.scores[sure], self.labels[sure], self.boxes[sure], self.masks[sure])

    @cached_property
    def coco(self) -> list[dict[str, Any]]:
        """The same in the COCO form: class, score, box [x, y, w, h], RLE.

        The metric and the file of predictions share it.
        """
        boxes = self.boxes.cpu().clone()
        boxes[:, 2:] -= boxes[:, :2]
        codes = masks.encode(self.masks.cpu().numpy())
        columns = (self.labels.tolist(), self.scores.tolist(), boxes.tolist(), codes)
        return [
            {"category_id": label, "score": score, "bbox": box, "segmentation": code}
            for label, score, box, code in zip(*columns, strict=True)
        ]


class InstanceTask(Task):
    """Finds the best instances of each image."""

    finds: ClassVar[str] = "instances"
    kept: ClassVar[bool] = True

    def read(self, model: Segmenter, output: Output, b: int, view: View) -> Instances:
        """Best instances of image b.

        Where no boxes are predicted, they are those of the masks; zeros for a mask without pixels.
        """
        result = output.matching
        scores, queries, labels = self._best(model, result.logits[-1, b].float())
        # a query may stand for several classes, its mask is made once
        unique_queries, inverse = queries.unique(return_inverse=True)
        factors = result.embeddings[-1, b, unique_queries].float(), output.mask_features[b].float()
        masks_of_queries, certainty = _masks(*factors, view, model.resize)
        if not model.focus_on_box:
            scores = scores * certainty[inverse]
        if result.boxes is None:
            boxes = bitmask(masks_of_queries)[inverse]
        else:
            boxes = _boxes(result.boxes[-1, b, queries], *view)
        scores, order = scores.sort(descending=True, stable=True)
        return Instances(scores, labels[order], boxes[order], masks_of_queries[inverse[order]])

    def _best(self, model: Segmenter, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, queries and classes of the best pairs of both. (Q, C) -> 3 x (topk or less,)"""
        probabilities = model.criterion.classify.scores(logits)
        scores, index = probabilities.flatten().topk(min(model.topk, probabilities.numel()))
        if self.least:  # the quality of a mask can only make a score smaller
            wanted = max(1, int((scores >= self.least).sum()))
            scores, index = scores[:wanted], index[:wanted]
        return scores, index // probabilities.shape[1], index % probabilities.shape[1]


def _boxes(boxes: Tensor, size: Size, padded_size: Size, original: Size) -> Tensor:
    """(M, 4) of the padded frame -> (M, 4) x1 y1 x2 y2 in pixels of the original image"""
    height, width = (p / s * o for p, s, o in zip(padded_size, size, original, strict=True))
    return cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height] * 2).float()


def _masks(
    embeddings: Tensor, features: Tensor, view: View, resize: Resize
) -> tuple[Tensor, Tensor]:
    """(M, C), (C, h, w) -> masks (M, H, W) bool at the original size, their mean certainty (M,)"""
    _, padded_size, original = view
    chunk = max(1, frames.CELLS // max(padded_size[0] * padded_size[1], original[0] * original[1]))
    masks, quality = [], []
    for part in embeddings.split(chunk):
        logits = torch.einsum("mc,chw->mhw", part, features).float()[None]
        logits = frames.to_original(logits, *view, resize)[0]
        mask = logits > 0
        inside = mask.float()  # sums of floats are much faster than those of booleans
        certain = logits.sigmoid_().mul_(inside).sum((1, 2))
        masks.append(mask)
        quality.append(certain / (inside.sum((1, 2)) + 1e-6))
    return torch.cat(masks), torch.cat(quality)


TASK = InstanceTask

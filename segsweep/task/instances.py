"""The task of instances: scored masks and boxes of single objects.

A mask at the picture's own size is as large as the picture, so a few are made at a time, measured
and encoded; what is handed on are their run lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
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
    rles: list[dict[str, Any]]  # M masks
    size: Size  # of the image

    def above(self, least: float) -> Instances:
        """Return the objects of score `least` and more."""
        sure = self.scores >= least
        rles = [rle for rle, kept in zip(self.rles, sure.tolist(), strict=True) if kept]
        return Instances(self.scores[sure], self.labels[sure], self.boxes[sure], rles, self.size)

    @cached_property
    def masks(self) -> Tensor:
        """The masks as pixels, made when they are asked for. (M, H, W) bool"""
        pixels = torch.zeros((len(self.rles), *self.size), dtype=torch.bool)
        for mask, rle in zip(pixels, self.rles, strict=True):
            mask[:] = torch.from_numpy(masks.to_mask(rle, self.size))
        return pixels.to(self.scores.device)

    @cached_property
    def coco(self) -> list[dict[str, Any]]:
        """The same in the COCO form: class, score, box [x, y, w, h], RLE.

        The metric and the file of predictions share it.
        """
        boxes = self.boxes.cpu().clone()
        boxes[:, 2:] -= boxes[:, :2]
        columns = (self.labels.tolist(), self.scores.tolist(), boxes.tolist(), self.rles)
        return [
            {"category_id": label, "score": score, "bbox": box, "segmentation": rle}
            for label, score, box, rle in zip(*columns, strict=True)
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
        rles, certainty, boxes = self._masks(*factors, view, model.resize)
        if not model.focus_on_box:
            scores = scores * certainty[inverse]
        if result.boxes is None:
            boxes = boxes[inverse]
        else:
            boxes = boxes_of(result.boxes[-1, b, queries], *view)
        scores, order = scores.sort(descending=True, stable=True)
        rles = [rles[k] for k in inverse[order].tolist()]
        return Instances(scores, labels[order], boxes[order], rles, view[-1])

    def encode(self, found: Tensor) -> list[dict[str, Any]]:
        """Return the RLE of each mask. (m, H, W) bool"""
        return masks.encode(found.cpu().numpy())

    def _masks(
        self, embeddings: Tensor, features: Tensor, view: View, resize: Resize
    ) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
        """(M, C), (C, h, w) -> RLE at the original size, mean certainty (M,), tight boxes (M, 4)"""
        _, padded, original = view
        few = max(1, frames.CELLS // max(padded[0] * padded[1], original[0] * original[1]))
        parts = [self._few(part, features, view, resize) for part in embeddings.split(few)]
        rles, certainty, boxes = zip(*parts, strict=True)
        return list(chain.from_iterable(rles)), torch.cat(certainty), torch.cat(boxes)

    def _few(
        self, embeddings: Tensor, features: Tensor, view: View, resize: Resize
    ) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
        """The same of masks that are made at once; their logits change in place, to be few."""
        logits = torch.einsum("mc,chw->mhw", embeddings, features).float()[None]
        logits = frames.to_original(logits, *view, resize)[0]
        found, outside = logits > 0, logits <= 0  # neither is what is no number
        certain = logits.sigmoid_().masked_fill_(outside, 0).sum((1, 2))
        del outside
        inside = logits.copy_(found).sum((1, 2))  # sums of floats are much faster than of booleans
        del logits
        return self.encode(found), certain / (inside + 1e-6), bitmask(found)

    def _best(self, model: Segmenter, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, queries and classes of the best pairs of both. (Q, C) -> 3 x (topk or less,)"""
        probabilities = model.criterion.classify.scores(logits)
        scores, index = probabilities.flatten().topk(min(model.topk, probabilities.numel()))
        if self.least:  # the quality of a mask can only make a score smaller
            wanted = max(1, int((scores >= self.least).sum()))
            scores, index = scores[:wanted], index[:wanted]
        return scores, index // probabilities.shape[1], index % probabilities.shape[1]


def boxes_of(boxes: Tensor, size: Size, padded_size: Size, original: Size) -> Tensor:
    """(M, 4) of the padded frame -> (M, 4) x1 y1 x2 y2 in pixels of the original image"""
    height, width = (p / s * o for p, s, o in zip(padded_size, size, original, strict=True))
    return cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height] * 2).float()


TASK = InstanceTask

"""Instances of queries: scored masks and boxes of single objects.

A mask at the picture's own size is as large as the picture, so a few are made at a time, measured
and encoded; what is handed on are their run lengths.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from segsweep.data.formats import masks
from segsweep.data.geometry import Size, View
from segsweep.loss.boxes import bitmask, cxcywh_to_xyxy
from segsweep.loss.outputs import Output
from segsweep.model.found import Instances
from segsweep.model.heads import frames
from segsweep.model.heads.query import Reader


class InstanceReader(Reader):
    """Finds the best instances of each image."""

    def read(self, output: Output, b: int, view: View, least: float) -> Instances:
        """Best instances of image b.

        Where no boxes are predicted, they are those of the masks; zeros for a mask without pixels.
        """
        result = output.matching
        scores, queries, labels = self._best(result.logits[-1, b].float(), least)
        # a query may stand for several classes, its mask is made once
        unique_queries, inverse = queries.unique(return_inverse=True)
        factors = result.embeddings[-1, b, unique_queries].float(), output.mask_features[b].float()
        rles, certainty, boxes = self._masks(*factors, view)
        if not self.focus_on_box:
            scores = scores * certainty[inverse]
        if result.boxes is None:
            boxes = boxes[inverse]
        else:
            boxes = boxes_of(result.boxes[-1, b, queries], *view)
        scores, order = scores.sort(descending=True, stable=True)
        rles = [rles[k] for k in inverse[order].tolist()]
        return Instances(scores, labels[order], boxes[order], rles, view[-1])

    def encode(self, found: Tensor) -> list[dict[str, Any]]:
        """Return the RLE of each mask, nothing of it unless `encoded`. (m, H, W) bool"""
        return masks.encode(found.cpu().numpy()) if self.encoded else [{}] * len(found)

    def _masks(
        self, embeddings: Tensor, features: Tensor, view: View
    ) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
        """(M, C), (C, h, w) -> RLE at the original size, mean certainty (M,), tight boxes (M, 4)"""
        _, padded, original = view
        few = max(1, frames.CELLS // max(padded[0] * padded[1], original[0] * original[1]))
        parts = [self._few(part, features, view) for part in embeddings.split(few)]
        rles, certainty, boxes = zip(*parts, strict=True)
        return list(chain.from_iterable(rles)), torch.cat(certainty), torch.cat(boxes)

    def _few(
        self, embeddings: Tensor, features: Tensor, view: View
    ) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
        """The same of masks that are made at once; their logits change in place, to be few."""
        logits = torch.einsum("mc,chw->mhw", embeddings, features).float()[None]
        logits = frames.to_original(logits, *view, self.resize)[0]
        found, outside = logits > 0, logits <= 0  # neither is what is no number
        certain = logits.sigmoid_().masked_fill_(outside, 0).sum((1, 2))
        del outside
        inside = logits.copy_(found).sum((1, 2))  # sums of floats are much faster than of booleans
        del logits
        return self.encode(found), certain / (inside + 1e-6), bitmask(found)

    def _best(self, logits: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, queries and classes of the best pairs of both. (Q, C) -> 3 x (topk or less,)"""
        probabilities = self.classify.scores(logits)
        scores, index = probabilities.flatten().topk(min(self.topk, probabilities.numel()))
        if least:  # the quality of a mask can only make a score smaller
            wanted = max(1, int((scores >= least).sum()))
            scores, index = scores[:wanted], index[:wanted]
        return scores, index // probabilities.shape[1], index % probabilities.shape[1]


def boxes_of(boxes: Tensor, size: Size, padded_size: Size, original: Size) -> Tensor:
    """(M, 4) of the padded frame -> (M, 4) x1 y1 x2 y2 in pixels of the original image"""
    height, width = (p / s * o for p, s, o in zip(padded_size, size, original, strict=True))
    return cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height] * 2).float()


READER = InstanceReader

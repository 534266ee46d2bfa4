"""The semantic task: the class of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from segsweep.data.base import BACKGROUND
from segsweep.loss.outputs import Output
from segsweep.task import frames
from segsweep.task.base import Task, View

if TYPE_CHECKING:
    from segsweep.model.segmenter import Resize, Segmenter


@dataclass
class SemanticMap:
    """The best class of every pixel of one image, at the image's original size."""

    classes: Tensor  # (H, W) uint8
    scores: Tensor  # (H, W) of these classes, at most 1

    def above(self, least: float) -> SemanticMap:
        """Return the map: every pixel keeps its class, however sure it is."""
        return self

    def label_map(self, background: bool) -> Tensor:
        """Classes, where a set has `background` that where no class reaches 0.5. -> (H, W) uint8"""
        if not background:
            return self.classes
        return self.classes.masked_fill(self.scores < 0.5, BACKGROUND)


class SemanticTask(Task):
    """Finds the best class of every pixel of each image."""

    finds: ClassVar[str] = "label maps"
    dense: ClassVar[bool] = True

    def read(self, model: Segmenter, output: Output, b: int, view: View) -> SemanticMap:
        """Best classes of the pixels of image b."""
        result, features = output.matching, output.mask_features[b].float()
        logits = torch.einsum("qc,chw->qhw", result.embeddings[-1, b].float(), features)
        probabilities = model.criterion.classify.scores(result.logits[-1, b].float())
        return best_classes(probabilities, logits, view, model.resize)


def best_classes(probabilities: Tensor, logits: Tensor, view: View, resize: Resize) -> SemanticMap:
    """Semantic inference of MaskFormer (Cheng 2021, 3.4). p(class) (Q, K), masks (Q, h, w)

    The score of a class is the sum over the queries of p(class) times the mask's probability.
    Neither Q masks nor K scores of a whole image are there at once: resizing is linear, so strips
    of rows are made by a matrix, then their columns as ever.
    """
    (size, padded_size, original), height = view, logits.shape[1]
    unit = torch.eye(height, device=logits.device)[None, None]
    heights = (size[0], height), (padded_size[0], height), (original[0], height)
    rows = frames.to_original(unit, *heights, resize)[0, 0]  # (H, h)
    best = torch.empty(original, dtype=torch.uint8, device=logits.device)
    scores = logits.new_empty(original)
    step = max(1, frames.CELLS // (sum(probabilities.shape) * original[1]))
    for top, strip in zip(range(0, original[0], step), rows.split(step), strict=True):
        used, n = strip.any(0), len(strip)
        masks = torch.einsum("rh,qhw->qrw", strip[:, used], logits[:, used])[None]
        widths = (n, size[1]), (n, padded_size[1]), (n, original[1])
        masks = frames.to_original(masks, *widths, resize)[0].sigmoid_()
        scores[top : top + n], best[top : top + n] = torch.einsum(
            "qk,qrw->krw", probabilities, masks
        ).max(0)
    return SemanticMap(best, scores.clamp_(max=1))


TASK = SemanticTask

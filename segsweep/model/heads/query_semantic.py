"""Label maps of queries: the class of every pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segsweep.data.geometry import View
from segsweep.loss.outputs import Output
from segsweep.model.found import SemanticMap
from segsweep.model.heads import frames
from segsweep.model.heads.query import Reader


class SemanticReader(Reader):
    """Finds the best class of every pixel of each image."""

    def read(self, output: Output, b: int, view: View, least: float) -> SemanticMap:
        """Best classes of the pixels of image b."""
        result, features = output.matching, output.mask_features[b].float()
        logits = torch.einsum("qc,chw->qhw", result.embeddings[-1, b].float(), features)
        probabilities = self.classify.scores(result.logits[-1, b].float())
        return best_classes(probabilities, logits, view, self.resize)


def best_classes(
    probabilities: Tensor,
    masks: Tensor,
    view: View,
    resize: frames.Resize,
    certain: Callable[[Tensor], Tensor] = Tensor.sigmoid_,
) -> SemanticMap:
    """Semantic inference of MaskFormer (Cheng 2021, 3.4). p(class) (Q, K), masks (Q, h, w)

    The score of a class is the sum over the queries of p(class) times the mask's probability, which
    is `certain` of what becomes of `masks` at the original size. Where there is one class, nothing
    stands against that sum, and hundreds of queries at 0.01 make it 1: there the score is the
    largest such product, what is left of 1 is the background's.
    Neither Q masks nor K scores of a whole image are there at once, see `frames.strips`.
    """
    original = view[2]
    best = torch.empty(original, dtype=torch.uint8, device=masks.device)
    scores = masks.new_empty(original)
    for rows, few in frames.strips(masks, view, resize, room=probabilities.shape[1]):
        few = certain(few)
        if probabilities.shape[1] == 1:
            found = few.mul_(probabilities[:, :, None]).amax(0, keepdim=True)
        else:
            found = torch.einsum("qk,qrw->krw", probabilities, few)
        scores[rows], best[rows] = found.max(0)
    return SemanticMap(best, scores.clamp_(max=1))


READER = SemanticReader

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
    Neither Q masks nor K scores of a whole image are there at once: resizing is linear, so strips
    of rows are made by a matrix, then their columns as ever.
    """
    (size, padded_size, original), height = view, masks.shape[1]
    unit = torch.eye(height, device=masks.device)[None, None]
    heights = (size[0], height), (padded_size[0], height), (original[0], height)
    rows = frames.to_original(unit, *heights, resize)[0, 0]  # (H, h)
    best = torch.empty(original, dtype=torch.uint8, device=masks.device)
    scores = masks.new_empty(original)
    step = max(1, frames.CELLS // (sum(probabilities.shape) * original[1]))
    for top, strip in zip(range(0, original[0], step), rows.split(step), strict=True):
        used, n = strip.any(0), len(strip)
        few = torch.einsum("rh,qhw->qrw", strip[:, used], masks[:, used])[None]
        widths = (n, size[1]), (n, padded_size[1]), (n, original[1])
        few = certain(frames.to_original(few, *widths, resize)[0])
        if probabilities.shape[1] == 1:
            found = few.mul_(probabilities[:, :, None]).amax(0, keepdim=True)
        else:
            found = torch.einsum("qk,qrw->krw", probabilities, few)
        scores[top : top + n], best[top : top + n] = found.max(0)
    return SemanticMap(best, scores.clamp_(max=1))


READER = SemanticReader

"""Suppression without a sequence: of cells by their neighbours, of masks by a matrix (SOLOv2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MatrixNMS:
    """Matrix NMS (Wang 2020, arXiv:2003.10152, 3.4), as in mmdet's `matrix_nms.py`.

    A score decays by the overlap with better masks of its class: by exp(-sigma iou^2), or, linear,
    by 1 - iou; less where those overlap better ones themselves. `candidates` are compared at most,
    those that keep the score `least` are kept, `most` of them.
    """

    kernel: str = "gaussian"  # or "linear"
    sigma: float = 2.0
    candidates: int = 500
    least: float = 0.05
    most: int = 100

    def __call__(
        self, scores: Tensor, labels: Tensor, masks: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the scores and indices of those that are kept of N, best first.

        (N,), (N,) -> (m,), (m,); `masks` gives those of some indices, (n,) -> (n, h, w) bool.
        """
        scores, order = scores.sort(descending=True, stable=True)
        scores, order = scores[: self.candidates], order[: self.candidates]
        scores = scores * self.decay(labels[order], masks(order))
        scores, ranks = scores.sort(descending=True, stable=True)
        kept = (scores >= self.least)[: self.most]
        return scores[: self.most][kept], order[ranks[: self.most][kept]]

    def decay(self, labels: Tensor, masks: Tensor) -> Tensor:
        """Return the factor on the score of each mask, best first. (n,), (n, h, w) bool -> (n,)"""
        pixels = masks.flatten(1).float()
        shared, area = pixels @ pixels.T, pixels.sum(1)
        union = (area[:, None] + area - shared).clamp(min=1)
        same = labels[:, None] == labels
        iou = (shared / union * same).triu(diagonal=1)  # row: the better mask
        if not len(iou):
            return area
        compensation = self._kept(iou.amax(0))[:, None]
        return (self._kept(iou) / compensation.clamp(min=1e-6)).amin(0)

    def _kept(self, iou: Tensor) -> Tensor:
        """What a mask keeps of its score beside a better one. (...) -> (...)"""
        return 1 - iou if self.kernel == "linear" else torch.exp(-self.sigma * iou**2)


def peaks(scores: Tensor) -> Tensor:
    """Keep scores that none above, left or above left exceeds, make others 0. (K, S, S) -> same

    SOLO's "points NMS", which looks one way only so that of equal neighbours one is kept.
    """
    best = F.max_pool2d(scores, 2, stride=1, padding=1)[..., :-1, :-1]
    return scores * (scores == best)

"""The focal loss of independent classes (Lin 2017, arXiv:1708.02002): alpha 0.25, gamma 2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ALPHA = 0.25


def present(logits: Tensor) -> Tensor:
    """Focal loss of classes that are there. (...) -> (...)"""
    return ALPHA * logits.neg().sigmoid() ** 2 * F.softplus(-logits)


def absent(logits: Tensor) -> Tensor:
    """Focal loss of classes that are not there. (...) -> (...)"""
    return (1 - ALPHA) * logits.sigmoid() ** 2 * F.softplus(logits)


def focal_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over rows and classes: as if every class were absent, corrected where one is there.

    (N, K), (N,) int64 with K and more for none -> ()
    """
    rows = (labels < logits.shape[1]).nonzero(as_tuple=True)[0]
    hit = logits[rows, labels[rows]]
    return absent(logits).sum() + (present(hit) - absent(hit)).sum()

"""The class loss of a family: focal on independent classes, or softmax with a no-object class.

The matcher, the criterion and the scores of found instances read it through one interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.loss.focal import ALPHA, absent, present

if TYPE_CHECKING:
    from segsweep.loss.pairs import Pairs, Truth


class ClassLoss(Protocol):
    """What class logits mean; `meaning` says it in words."""

    meaning: ClassVar[str]

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities of the K classes of the data. (..., C) -> (..., K)"""
        ...

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cost of giving each query each target's class. (..., Q, C), (n,) -> (..., Q, n)"""
        ...

    def loss(self, logits: Tensor, pairs: Pairs, truth: Truth, norm: Tensor) -> Tensor:
        """Loss of every set; queries without a target hold no object. (S, B, Q, C) -> (S,)

        `norm` () is the number of masks, for a loss that is a sum over the queries.
        """
        ...


class Focal:
    """Sigmoid focal loss (Lin 2017, gamma 2), summed over queries and classes; C = K."""

    meaning: ClassVar[str] = "sigmoid"

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities of independent classes; see `ClassLoss`."""
        return logits.sigmoid()

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the loss of a class gains by being there; see `ClassLoss`."""
        p = logits.sigmoid()[..., labels]
        hit = ALPHA * (1 - p) ** 2 * -torch.log(p + 1e-8)
        miss = (1 - ALPHA) * p**2 * -torch.log(1 - p + 1e-8)
        return hit - miss

    def loss(self, logits: Tensor, pairs: Pairs, truth: Truth, norm: Tensor) -> Tensor:
        """Sum over all queries and classes per mask; see `ClassLoss`."""
        paired = pairs.pick(logits)
        labels = truth.labels[pairs.target].expand(paired.shape[:2])
        hit = paired.gather(2, labels.unsqueeze(2))
        # as if every class of every query were absent, corrected where a pair says otherwise
        total = absent(logits).flatten(1).sum(1)
        return (total + (present(hit) - absent(hit)).flatten(1).sum(1)) / norm


@dataclass(frozen=True)
class Softmax:
    """Weighted cross entropy over K classes and, last, "no object" (Cheng 2022); C = K + 1.

    `no_object` is the weight of that class, all others have 1.
    """

    meaning: ClassVar[str] = "softmax, the last column is no object"

    no_object: float = 0.1

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities without that of "no object"; see `ClassLoss`."""
        return logits.softmax(-1)[..., :-1]

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Negative probability of the class; see `ClassLoss`."""
        return -logits.softmax(-1)[..., labels]

    def loss(self, logits: Tensor, pairs: Pairs, truth: Truth, norm: Tensor) -> Tensor:
        """Mean over the queries of a set by the weights of their classes; see `ClassLoss`."""
        weights = logits.new_ones(logits.shape[-1])
        weights[-1] = self.no_object
        labels = logits.new_full(logits.shape[:-1], len(weights) - 1, dtype=torch.long)
        labels[pairs.index(len(logits))] = truth.labels[pairs.target]
        losses = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), weights, reduction="none")
        return losses.view(len(logits), -1).sum(1) / weights[labels].flatten(1).sum(1)

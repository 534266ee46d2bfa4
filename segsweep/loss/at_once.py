"""Losses whose gradients are made together with them, so that nothing of their graph is kept.

Points, probabilities and truth of the masks of all prediction sets would be most of what a loss
keeps. Gradients are less: one sum over all sets for each tensor that the losses read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class AtOnce:
    """Losses of several sets that read the same inputs, in the form of `leaves`.

    What is differentiated in the end must be a multiple of the sum of all losses, each times the
    weight of its kind: precision that scales the loss and means over forwards change the multiple.
    Anything else is a RuntimeError in the backward pass.
    """

    def __init__(self, weights: Mapping[str, float], inputs: Sequence[Tensor]) -> None:
        self.weights, self.inputs = weights, inputs
        self.leaves = [t.detach().requires_grad_(t.requires_grad) for t in inputs]
        self.added: list[Mapping[str, Tensor]] = []

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Differentiate the losses of S sets, (S,) of each kind, which come from the leaves."""
        weighted = [self.weights[kind] * loss.sum() for kind, loss in losses.items()]
        total = torch.stack(weighted).sum()
        if total.requires_grad:
            total.backward()
        self.added.append({kind: loss.detach() for kind, loss in losses.items()})

    def losses(self) -> list[dict[str, Tensor]]:
        """Return what was added, now with a graph that leads to the inputs."""
        kinds = list(self.added[0])
        losses = torch.stack([torch.cat([part[kind] for part in self.added]) for kind in kinds])
        weights = losses.new_tensor([self.weights[kind] for kind in kinds])
        gradients = [leaf.grad for leaf in self.leaves]
        known = cast(Tensor, _Known.apply(losses, weights, gradients, *self.inputs))
        parts = known.split([len(part[kinds[0]]) for part in self.added], dim=1)
        return [dict(zip(kinds, part, strict=True)) for part in parts]


class _Known(torch.autograd.Function):
    """Losses whose gradients are known: those of their sum by weights, for each of the inputs."""

    @staticmethod
    def forward(
        ctx: Any, losses: Tensor, weights: Tensor, gradients: list[Tensor | None], *inputs: Tensor
    ) -> Tensor:
        """Pass on the losses (K, S) of kinds with weights (K,)."""
        ctx.save_for_backward(weights[:, None], *gradients)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Scale the gradients by the multiple that is differentiated."""
        (grad,), (weights, *gradients) = grads, ctx.saved_tensors
        multiple = (grad * weights).sum() / weights.expand_as(grad).square().sum().clamp(min=1e-30)
        same = (grad - multiple * weights).abs().max() <= 1e-3 * grad.abs().max()
        torch._assert_async(same, "mask losses are differentiated by other weights than their own")
        scaled = [None if known is None else known * multiple for known in gradients]
        return None, None, None, *scaled

"""Two linear layers with ReLU between them, which keep nothing of what is between them.

The hidden layer of an encoder is the largest tensor that a training step would keep: eight times
its tokens. It is made again for the gradient instead, a few tokens at a time, and takes no longer:
what is written and read again at once stays in caches, and memory is not asked for anew.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CELLS = 2**21  # of the hidden layer at once, 8 MiB; what has no more is kept


def feed_forward(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """second(relu(first(x))). (..., C) -> (..., out)

    Weights may be edited or frozen. The hidden layer is kept after all where it is small, under
    autocast, and where a layer is more than its weights: of another kind, without bias, or hooked.
    """
    few = CELLS // first.out_features
    if (
        not torch.is_grad_enabled()
        or torch.is_autocast_enabled(x.device.type)
        or x.numel() <= few * x.shape[-1]
        or not (_plain(first) and _plain(second))
    ):
        return second(first(x).relu())
    weights = first.weight, first.bias, second.weight, second.bias
    return cast(Tensor, _FeedForward.apply(x, *weights, few))


def _plain(layer: nn.Linear) -> bool:
    """Say whether calling a layer does no more than to apply its weight and bias."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks
    kind = type(layer).forward is nn.Linear.forward and layer.bias is not None
    return kind and not any(hooks) and not layer._backward_pre_hooks


class _FeedForward(torch.autograd.Function):
    """`feed_forward` of `few` tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, few: int
    ) -> Tensor:
        """(..., C), (H, C), (H,), (out, H), (out,) -> (..., out)"""
        ctx.few = few
        ctx.save_for_backward(x, w1, b1, w2)
        parts = x.reshape(-1, x.shape[-1]).split(few)
        out = torch.cat([F.linear(F.linear(part, w1, b1).relu_(), w2, b2) for part in parts])
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Add up the gradients that are wanted, part by part."""
        x, w1, b1, w2 = ctx.saved_tensors
        rows, grad = x.reshape(-1, x.shape[-1]), grads[0].flatten(0, -2)
        wanted = ctx.needs_input_grad[:5]
        like = rows, w1, b1, w2, grad[0]
        gx, gw1, gb1, gw2, gb2 = (
            torch.zeros_like(t) if want else None for t, want in zip(like, wanted, strict=True)
        )
        for start in range(0, len(rows), ctx.few):
            part, out = (t[start : start + ctx.few] for t in (rows, grad))
            hidden = F.linear(part, w1, b1).relu_()
            inner = torch.ops.aten.threshold_backward(out @ w2, hidden, 0)
            if gw2 is not None:
                gw2.addmm_(out.T, hidden)
            if gb2 is not None:
                gb2 += out.sum(0)
            if gw1 is not None:
                gw1.addmm_(inner.T, part)
            if gb1 is not None:
                gb1 += inner.sum(0)
            if gx is not None:
                torch.mm(inner, w1, out=gx[start : start + ctx.few])
        return None if gx is None else gx.view_as(x), gw1, gb1, gw2, gb2, None

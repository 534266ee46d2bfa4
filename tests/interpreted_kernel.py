"""Compares the Triton kernel of deformable attention with the plain function, on a CPU.

A process of its own: Triton decides when it is imported whether kernels are interpreted.
"""

from __future__ import annotations

import torch
from test_model_deformable import SHAPES, case

from segsweep.model.layers import deformable, deformable_triton


def results(function, spread: float, frozen: bool) -> list[torch.Tensor | None]:
    """What a function gives, and the gradients of its inputs; 36 bags are two programs."""
    inputs = case(0, spread, batch=2, heads=3, dim=3)
    inputs[0].requires_grad_(not frozen)
    value, *rest = inputs
    out = function(value, SHAPES, *rest)
    draws = torch.Generator().manual_seed(1)
    out.backward(torch.randn(out.shape, generator=draws, dtype=out.dtype))
    return [out.detach(), *(tensor.grad for tensor in inputs)]


def main() -> None:
    """Compare; values are trained and places lie far outside, then values are frozen."""
    for spread, frozen in ((5.0, False), (1.0, True)):
        pairs = [results(f, spread, frozen) for f in (deformable_triton.read, deformable.read)]
        for ours, plain in zip(*pairs, strict=True):
            assert (ours is None) == (plain is None)
            if ours is not None and plain is not None:
                torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    main()

"""Two operators of these models in ONNX, for which torch has no word, or a slow one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

op: Any = opset18
UINT8 = 2  # onnx.TensorProto.UINT8


def bytes_of(x: Any, dtype: int) -> Any:
    """`x.view(torch.uint8)` of booleans, which are bytes 0 and 1."""
    return op.Cast(x, to=UINT8)


def weighted_rows(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """`embedding_bag` of deformable attention: sums of weighted rows, equally many in every bag.

    torch's own translation is a loop over the bags.
    """
    bags, width = offsets.shape[0], weight.shape[1]
    rows = op.Mul(op.Gather(weight, indices), op.Unsqueeze(per_sample_weights, [1]))
    total = op.ReduceSum(op.Reshape(rows, [bags, -1, width]), [1], keepdims=0)
    return total, *(op.Identity(offsets) for _ in range(3))  # nobody asks for these


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.view.dtype: bytes_of,
    torch.ops.aten.embedding_bag.padding_idx: weighted_rows,
}

"""The parts of torch that its documents do not promise: whoever needs one finds it here.

tests/test_foreign.py says what an upgrade of torch broke.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "EMBEDDING_BAGS",
    "TorchDispatchMode",
    "changes",
    "grad_bag_shares",
    "storage_id",
    "tensors",
]

EMBEDDING_BAGS = (torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)
grad_bag_shares = torch.ops.aten._embedding_bag_per_sample_weights_backward


def tensors(values: Any) -> list[Tensor]:
    """Return all tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def storage_id(storage: torch.UntypedStorage) -> int:
    """Return what is one for all objects that stand for the same storage."""
    return storage._cdata


def changes(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return tensor._version

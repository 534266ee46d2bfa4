"""What one forward pass takes: floating point operations, and memory at its peak.

Operations are those of torch's own counter, two for each multiplication with its addition: matrix
products, convolutions, attention; and, as it leaves them out, the reads of deformable attention.
Norms, activations, sums and resizing are not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segsweep.model.torch_parts import EMBEDDING_BAGS, TorchDispatchMode, storage_id, tensors

MIB = 2**20
Shape = Sequence[int]


def weighted_rows(table: Shape, rows: Shape, *_: Any, **__: Any) -> int:
    """Return operations of an embedding bag: each row read is weighted and added."""
    return 2 * prod(rows) * table[1]


def bilinear_reads(maps: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """Return operations of `grid_sample`: four cells for every value read."""
    return 2 * 4 * prod(out_shape)


FORMULAS = dict.fromkeys(EMBEDDING_BAGS, weighted_rows) | {
    torch.ops.aten.grid_sampler_2d: bilinear_reads
}


def count(call: Callable[[], object], device: torch.device) -> tuple[int, float]:
    """Return operations and peak memory in MiB of a call beyond what is there before it.

    Memory is that of tensors; on a GPU it is the allocator's, with the workspaces of kernels.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with counter:
            call()
        return counter.get_total_flops(), (torch.cuda.max_memory_allocated(device) - before) / MIB
    with LiveTensors() as live, counter:
        call()
    return counter.get_total_flops(), live.peak / MIB


class LiveTensors(TorchDispatchMode):
    """Adds up the storages that operations make and that are still there; `peak` in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Run an operation; storages of its results that are not those of its inputs are new."""
        out = func(*args, **(kwargs or {}))
        given = {storage_id(t.untyped_storage()) for t in tensors((args, kwargs))}
        for storage in (tensor.untyped_storage() for tensor in tensors(out)):
            key = storage_id(storage)
            if key not in given and key not in self.sizes:
                self.sizes[key] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, key).atexit = False
        self.peak = max(self.peak, sum(self.sizes.values()))
        return out

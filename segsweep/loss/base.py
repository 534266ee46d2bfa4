"""What every loss answers: raw terms by name, and their total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from segsweep.data.loader import Target


class BaseCriterion(nn.Module):
    """The loss of a batch. Everything is computed in float32, of every forward for itself."""

    def forward(self, output: Any, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the unweighted terms of a head's raw outputs under their official names."""
        raise NotImplementedError

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms of `forward`, each with its weight, by default 1. -> ()"""
        return torch.stack(list(terms.values())).sum()


def over_ranks(count: float | Tensor, device: torch.device) -> Tensor:
    """Return the mean of a number over all processes that train together. -> ()

    One that a GPU has counted is given as a tensor: asking for its value would wait for the GPU.
    """
    if isinstance(count, Tensor):
        mean = count.detach().to(torch.float32, copy=True)
    else:
        mean = torch.tensor(float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean

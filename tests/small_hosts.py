"""Small hosts, one per layout that has places, with weights none of which is zero."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segsweep.model.backbones.host import Host
from segsweep.model.family import BLOCK_ROLES
from segsweep.model.layers.block import HostBlock
from segsweep.peft.apply import Counts, apply
from segsweep.peft.method import Method

layouts = pytest.mark.parametrize("layout", ["vit", "sam", "swin"])


def example(layout: str) -> dict[str, Any]:
    """Name and sizes of a small one."""
    return import_module(f"segsweep.model.backbones.{layout}").SMALL


def small_host(layout: str, **changes: Any) -> Host:
    """A small one in double precision, in evaluation mode."""
    small, file = example(layout), import_module(f"segsweep.model.backbones.{layout}")
    torch.manual_seed(0)
    host = file.build(small["name"], {**small["kwargs"], **changes}).double().eval()
    with torch.no_grad():
        for parameter in host.parameters():
            parameter.normal_(std=0.5)
    return host


def blocks(host: Host) -> list[HostBlock]:
    """Its blocks in their order."""
    return [module for module in host.modules() if isinstance(module, HostBlock)]


class Model(nn.Module):
    """A host where a model has its backbone, and nothing else."""

    def __init__(self, host: Host):
        super().__init__()
        self.backbone = host


def applied(host: Host, method: Method) -> Counts:
    """Apply a method inside a host, where words mean what they mean in any."""
    return apply(Model(host), method, {"backbone": ["backbone.*"], **BLOCK_ROLES})


def images(height: int = 64, width: int = 96) -> Tensor:
    """Two images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def cubic(size: int, wanted: int) -> Tensor:
    """Weights of cubic convolution (Keys 1981, a = -3/4) without antialias: (wanted, size)"""
    weights = torch.zeros(wanted, size).double()
    for i in range(wanted):
        at = (i + 0.5) * size / wanted - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d = abs(at - j)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), size - 1)] += near if d <= 1 else far
    return weights

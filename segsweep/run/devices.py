"""Whether this machine can have a GPU at all, known before torch is loaded."""

from __future__ import annotations

import platform
from pathlib import Path

from segsweep.base.config import Trainer
from segsweep.base.errors import UserError

NODES = ("nvidia[0-9]*", "dxg", "kfd", "nvgpu", "nvmap")  # CUDA, of WSL, ROCm, Jetson
NO_GPU = (
    "trainer.accelerator=gpu: no GPU is found on this machine; trainer.accelerator=auto "
    "takes what is there, which is the CPU here"
)


def visible(trainer: Trainer, devices: Path = Path("/dev")) -> None:
    """Raise UserError where a run must have a GPU and a Linux machine has the device of none."""
    if trainer.accelerator.name != "gpu" or platform.system() != "Linux":
        return
    if not any(path for node in NODES for path in devices.glob(node)):
        raise UserError(NO_GPU)

"""On what a run computes, and what that took: device, precision, peak memory."""

from __future__ import annotations

import contextlib
import gc
import platform
from pathlib import Path
from typing import Any

import torch

from segsweep.base.config import Trainer


def arithmetic(trainer: Trainer) -> tuple[torch.device, torch.autocast]:
    """Return where a trained model computes, and the context of its precision."""
    gpu = torch.cuda.is_available() and trainer.accelerator.name != "cpu"
    device = torch.device("cuda" if gpu else "cpu")
    precision = trainer.precision.name
    half = torch.float16 if precision == "fp16" and gpu else torch.bfloat16
    return device, torch.autocast(device.type, half, enabled=precision != "fp32")


def machine_facts() -> dict[str, Any]:
    """Return peak memory in MiB since the run began, and the device."""
    cuda = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return {
        "memory": {
            "peak_rss_mib": peak_rss_mib(),
            "peak_cuda_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if cuda else None,
        },
        "device": {
            "name": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
            "host": platform.node(),
            "threads": torch.get_num_threads(),
        },
    }


def reset_peaks() -> None:
    """Begin to measure peak memory: several runs may share a process."""
    gc.collect()  # a Lightning trainer is full of cycles
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024, 1)
    except (OSError, StopIteration):
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

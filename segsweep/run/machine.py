"""On what a run computes, and what that took: device, precision, peak memory."""

from __future__ import annotations

import contextlib
import gc
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segsweep.base.config import Config, Trainer
from segsweep.base.errors import UserError
from segsweep.run.devices import NO_GPU

MOST_LOADING = 4  # processes beside a GPU; each holds a part of the decoded images


def arithmetic(trainer: Trainer) -> tuple[torch.device, torch.autocast]:
    """Return where a trained model computes, and the context of its precision."""
    device, precision = device_of(trainer), trainer.precision.name
    half = torch.float16 if precision == "fp16" and device.type == "cuda" else torch.bfloat16
    return device, torch.autocast(device.type, half, enabled=precision != "fp32")


def device_of(trainer: Trainer) -> torch.device:
    """Return where a trained model computes."""
    gpu = torch.cuda.is_available() and trainer.accelerator.name != "cpu"
    return torch.device("cuda" if gpu else "cpu")


def kind_of(device: torch.device) -> str:
    """Name what a device computes alike with: "cpu", "cuda:NVIDIA A100", "mps"."""
    return f"cuda:{torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def require(trainer: Trainer) -> None:
    """Raise UserError where this machine lacks the GPUs that a run must have."""
    if trainer.accelerator.name != "gpu" or torch.backends.mps.is_available():
        return
    if not (there := torch.cuda.device_count()):
        raise UserError(NO_GPU)
    if trainer.devices > there:
        raise UserError(f"trainer.devices={trainer.devices}: torch finds {there} GPUs here")


def loading_processes(config: Config) -> int:
    """Return how many processes load data: what `io.workers` says, or what suits the device."""
    if config.io.workers is not None:
        return config.io.workers
    if device_of(config.trainer).type == "cpu":
        return 0
    return min(MOST_LOADING, torch.get_num_threads())


def machine_facts(trained_on: Sequence[str] = ()) -> dict[str, Any]:
    """Return peak memory in MiB since the run began, the device, and those that trained it."""
    cuda = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return {
        "memory": {
            "peak_rss_mib": peak_rss_mib(),
            "peak_cuda_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if cuda else None,
        },
        "device": {
            "name": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
            "kind": kind_of(torch.device("cuda" if cuda else "cpu")),
            "trained_on": list(trained_on),
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

"""What the blocks share: how large things are, a training step, times and memory of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.growth import scene
from segsweep.base.config import compose
from segsweep.bench.clock import timed
from segsweep.data.base import Subject
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups

OBJECTS = 7  # of an image, as COCO has


@dataclass(frozen=True)
class Scale:
    """Where to measure, and models and images of full size or of the tiny one."""

    device: torch.device
    full: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def model(self) -> str:
        return "maskdino_r50" if self.full else "maskdino_tiny"

    @property
    def side(self) -> int:
        return 1024 if self.full else 64

    @property
    def images(self) -> int:
        return 4 if self.full else 1

    @property
    def repeats(self) -> int:
        return 5 if self.full else 1


class Step:
    """A model with a method, a batch of noise with rectangles, and one optimizer step on it."""

    def __init__(
        self, scale: Scale, model: str, method: str = "lora", side: int = 0, classes: int = 80
    ) -> None:
        side = side or scale.side
        config = compose([f"model={model}", f"peft={method}", "model.weights=null"])
        torch.manual_seed(0)
        subject = Subject([f"class {number}" for number in range(classes)])
        self.model = config.model.build(subject)
        apply(self.model, config.peft, config.model.roles)
        self.model.to(scale.device).train()
        groups = parameter_groups(self.model, config.hparams, config.model.roles)
        self.optimizer = torch.optim.AdamW(groups)
        self.images = torch.randn(scale.images, 3, side, side).to(scale.device)
        scenes = [scene(side, OBJECTS) for _ in range(scale.images)]
        self.targets = [target.to(scale.device) for target in scenes]

    def loss(self, model: nn.Module | None = None) -> Tensor:
        """Forward and loss, of a compiled model if one is given. -> ()"""
        with parametrize.cached():
            output = (self.model if model is None else model)(self.images, self.targets)
            return self.model.loss(output, self.targets)["loss"]

    def __call__(self, model: nn.Module | None = None) -> None:
        self.optimizer.zero_grad()
        self.loss(model).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)
        self.optimizer.step()


def tf32(allowed: bool) -> None:
    """Let matrix products and convolutions round their factors to TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def measured(call: Callable[[], object], scale: Scale) -> dict[str, Any]:
    """Median milliseconds of a call after two that are not counted, and MiB it adds at its peak."""
    for _ in range(2 if scale.full else 1):
        call()
    row: dict[str, Any] = {}
    if scale.cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        row["peak MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"ms": median(timed(call, scale.device)[0] for _ in range(scale.repeats))} | row


def attempted(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a call, or why there is none: the next one may succeed."""
    try:
        return call()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"}

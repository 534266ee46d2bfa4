"""An exponential moving average of what trains: validated, and kept, in place of the weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segsweep.peft.delta import trained


def decay_at(decay: float, step: int) -> float:
    """Return how much of the average stays at an optimizer step, counted from 1 on.

    It rises to `decay`: what a short training begins with is not the most of what it ends with
    (`ExponentialMovingAverage` of TensorFlow, with `num_updates`).
    """
    return min(decay, (1 + step) / (10 + step))


class MovingAverage(pl.Callback):
    """Follows the trained tensors, one copy of each; the frozen base and buffers have none.

    It must stand behind what remembers the best weights of a validation, which sees the averages,
    and before what writes checkpoints, which hold both.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.step = model, decay, 0
        self.averages: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        averages = {name: average.cpu() for name, average in self.averages.items()}
        return {"averages": averages, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where an interrupted run stopped."""
        self.averages, self.step = state_dict["averages"], state_dict["step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights that training begins with."""
        for name, weight in trained(self.model):
            average = self.averages.get(name, weight.detach().clone())
            self.averages[name] = average.to(weight.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the optimizer, if this batch made it step."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        share = 1 - decay_at(self.decay, self.step)
        for name, weight in trained(self.model):
            self.averages[name].lerp_(weight, share)

    def exchange(self) -> None:
        """Let the model and this have each other's tensors."""
        for name, weight in trained(self.model):
            average = self.averages[name].to(weight.device)
            self.averages[name], weight.data = weight.data, average

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the averages."""
        self.exchange()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the weights."""
        self.exchange()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averages in the model."""
        self.exchange()

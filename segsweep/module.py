"""The LightningModule: it knows `loss` and `predict` of the model, and no task."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.config import Config, Hparams, Schedule
from segsweep.data.loader import Batch
from segsweep.model.segmenter import Segmenter
from segsweep.peft.base import delta_state_dict, load_state

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of every random draw of one optimizer step; restarts change nothing."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def learning_rate_factor(hparams: Hparams, step: int, total: int) -> float:
    """Return what multiplies the learning rate at a step: a pure function, hence no state."""
    if step < hparams.warmup:
        return (step + 1) / (hparams.warmup + 1)
    if hparams.schedule is Schedule["multistep"]:
        passed = sum(step >= milestone * total for milestone in hparams.milestones)
        return hparams.gamma**passed
    if hparams.schedule is Schedule["cosine"]:
        done = (step - hparams.warmup) / max(1, total - hparams.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0


def parameter_groups(model: nn.Module, hparams: Hparams) -> list[dict[str, Any]]:
    """Return AdamW groups of what trains: no decay for norms, embeddings and position biases.

    Biases and LoRA factors do decay, as in the Mask DINO recipe and its PEFT fork.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            undecayed = isinstance(module, NORMS) or name == "relative_position_bias_table"
            scale = hparams.backbone_lr if is_backbone_weight(prefix, module) else 1.0
            key = (hparams.lr * scale, 0.0 if undecayed else hparams.weight_decay)
            members = groups.setdefault(key, [])
            if not any(parameter is member for member in members):
                members.append(parameter)
    return [
        {"params": members, "lr": lr, "base_lr": lr, "weight_decay": decay}
        for (lr, decay), members in groups.items()
    ]


def is_backbone_weight(prefix: str, module: nn.Module) -> bool:
    """Say whether a module holds base weights of the backbone, not what a method added to it."""
    added = type(module).__module__.startswith("segsweep.peft")
    return prefix.startswith("backbone.") and not added


class Module(pl.LightningModule):
    """Trains what the PEFT method left trainable; everything random is a function of the step."""

    def __init__(self, config: Config, model: Segmenter, total_steps: int) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the delta only
        self.config, self.model, self.total_steps = config, model, total_steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step and set its learning rate."""
        torch.manual_seed(step_seed(self.config.seed + 7919 * self.global_rank, self.global_step))
        factor = learning_rate_factor(self.config.hparams, self.global_step, self.total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["base_lr"] * factor

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the weighted total as `loss` beside its terms."""
        with parametrize.cached():  # an edited weight is asked for several times a step
            output = self.model(batch.images, batch.targets)
            return self.model.loss(output, batch.targets)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the instances of each image of the batch."""
        return {"instances": predict(self.model, batch)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over what trains."""
        return torch.optim.AdamW(parameter_groups(self.model, self.config.hparams))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the delta only: the frozen base is never written."""
        checkpoint["state_dict"] = delta_state_dict(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the delta into the model that was just built from the same config."""
        load_state(self.model, checkpoint["state_dict"])
        checkpoint["state_dict"] = {}


def predict(model: Segmenter, batch: Batch) -> list[Any]:
    """Return the instances of each image of a batch, at its original size."""
    with torch.no_grad():
        output = model(batch.images)
        padded = (batch.images.shape[-2], batch.images.shape[-1])
        return model.predict(output, batch.sizes, padded, batch.original_sizes)

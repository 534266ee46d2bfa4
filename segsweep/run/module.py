"""The LightningModule: it knows `loss` and `predict` of the model, and no task."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.base.config import Config, Hparams, Schedule
from segsweep.base.errors import UserError
from segsweep.data.loader import Batch
from segsweep.metrics.base import Evaluator
from segsweep.model.segmenter import Segmenter
from segsweep.peft.delta import delta_state_dict, load_state
from segsweep.peft.method import Roles
from segsweep.peft.sites import Site, assign, named_weights
from segsweep.run.machine import kind_of

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
         nn.SyncBatchNorm, nn.Embedding)  # fmt: skip
POSITIONS = ("relative_position_bias_table", "positional_embedding")  # of Swin, of CLIP


def step_seed(seed: int, step: int) -> int:
    """Return the seed of every random draw of one optimizer step; restarts change nothing."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def learning_rate_factor(hparams: Hparams, step: int, total: int) -> float:
    """Return what multiplies the learning rate at a step: a pure function, hence no state."""
    if step < hparams.warmup:
        return (step + 1) / (hparams.warmup + 1)
    if hparams.schedule is Schedule["multistep"]:
        passed = sum(step >= int(milestone * total) for milestone in hparams.milestones)
        return hparams.gamma**passed
    if hparams.schedule is Schedule["cosine"]:
        done = (step - hparams.warmup) / max(1, total - hparams.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0


def parameter_groups(model: nn.Module, hparams: Hparams, roles: Roles) -> list[dict[str, Any]]:
    """Return AdamW groups of what trains, with the canonical names of each group's tensors.

    Weights of the backbone learn at `backbone_lr` times the rate; norms, embeddings and position
    embeddings do not decay; biases and LoRA factors do, as in the Mask DINO recipe and its PEFT
    fork. `lr_factors` and `decays` come before these rules (`peft.sites.assign`). What a method
    added learns at the full rate, wherever it stands.

    Raises UserError for an entry that names nothing in the model.
    """
    factors = assign(model, hparams.lr_factors, roles, "hparams.lr_factors")
    decays = assign(model, hparams.decays, roles, "hparams.decays")
    groups: dict[tuple[float, float], dict[nn.Parameter, str]] = {}
    for name, site in named_weights(model).items():
        weight = site.parameter
        if not weight.requires_grad:
            continue
        in_backbone = name.startswith("backbone.") and not site.added
        factor = factors.get(weight, hparams.backbone_lr if in_backbone else 1.0)
        decay = decays.get(weight, 0.0 if undecayed(site) else hparams.weight_decay)
        groups.setdefault((hparams.lr * factor, decay), {}).setdefault(weight, name)
    return [
        {
            "params": list(members),
            "names": list(members.values()),
            "lr": lr,
            "base_lr": lr,
            "weight_decay": decay,
        }
        for (lr, decay), members in groups.items()
    ]


def undecayed(site: Site) -> bool:
    """Say whether a weight is a norm's, an embedding or a position embedding."""
    return isinstance(site.module, NORMS) or site.attribute in POSITIONS


class Module(pl.LightningModule):
    """Trains what the PEFT method left trainable; everything random is a function of the step."""

    evaluator: Evaluator  # of the validation that is going on, or of the last one

    def __init__(
        self,
        config: Config,
        model: Segmenter,
        groups: list[dict[str, Any]],
        total_steps: int,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the delta only
        self.config, self.model, self.groups = config, model, groups
        self.total_steps = total_steps
        self.kinds: list[str] = []  # of devices on which earlier attempts trained

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over what trains."""
        return torch.optim.AdamW(self.groups)

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

    def on_validation_start(self) -> None:
        """Begin a new evaluation."""
        self.evaluator = self.config.metrics.evaluator(self.config.data, "val")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Hand what is found on each image of the batch to the evaluator."""
        self.evaluator.update(batch, self.model.find(batch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the delta only: the frozen base is never written. And on what it was computed."""
        checkpoint["state_dict"] = delta_state_dict(self.model)
        checkpoint["kinds"] = self.trained_on()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the delta into the model that was just built from the same config.

        Raises UserError where it was computed on another kind of device: the last bits would be
        those of neither, which somebody must want.
        """
        here = kind_of(self.trainer.strategy.root_device)
        self.kinds = checkpoint.get("kinds", [here])  # earlier versions kept none
        there = self.kinds[-1]
        if there != here and not self.config.trainer.cross_resume:
            raise UserError(
                f"last.ckpt was computed on {there}, this is {here}, where the last bits differ; "
                f"go on with {there}, or say trainer.cross_resume=true, or force=true to begin anew"
            )
        load_state(self.model, checkpoint["state_dict"])
        checkpoint["state_dict"] = {}

    def trained_on(self) -> list[str]:
        """Return the kinds of devices that have trained this run, in turn, the present one last."""
        here = kind_of(self.trainer.strategy.root_device)
        return self.kinds if self.kinds[-1:] == [here] else [*self.kinds, here]

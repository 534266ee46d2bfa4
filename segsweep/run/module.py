"""The LightningModule: it knows `loss` and `predict` of the model, and no task."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.base.config import Config, Hparams, Optimizer, Schedule
from segsweep.base.errors import UserError
from segsweep.data.loader import Batch
from segsweep.metrics.base import Evaluator
from segsweep.model.backbones.host import Host
from segsweep.model.backbones.timm import lars
from segsweep.model.family import Roles
from segsweep.model.segmenter import Segmenter
from segsweep.peft.delta import delta_state_dict, load_state
from segsweep.peft.sites import Site, assign, named_weights
from segsweep.run.evaluate import take
from segsweep.run.machine import kind_of
from segsweep.run.predictions import Keep

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
         nn.SyncBatchNorm, nn.Embedding)  # fmt: skip
POSITIONS = ("relative_position_bias_table", "positional_embedding")  # of Swin, of CLIP


MOMENTUM = 0.9  # of SGD and LARS


def step_seed(seed: int, step: int, forward: int = 0) -> int:
    """Return the seed of every random draw of one forward of an optimizer step.

    Restarts change nothing.
    """
    key = f"{seed}/{step}/{forward}" if forward else f"{seed}/{step}"
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:6], "big")


def learning_rate_factor(hparams: Hparams, step: int, total: int) -> float:
    """Return what multiplies the learning rate at a step: a pure function, hence no state."""
    warmup = hparams.warmup or round(hparams.warmup_part * total)
    if step < warmup:
        if hparams.warmup_from is None:
            return (step + 1) / (warmup + 1)
        risen = step / max(1, warmup - 1)
        return hparams.warmup_from + (1 - hparams.warmup_from) * risen
    if hparams.schedule is Schedule["multistep"]:
        passed = sum(step >= int(milestone * total) for milestone in hparams.milestones)
        return hparams.gamma**passed
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if hparams.schedule is Schedule["cosine"]:
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if hparams.schedule is Schedule["linear"] else 1.0


def parameter_groups(model: nn.Module, hparams: Hparams, roles: Roles) -> list[dict[str, Any]]:
    """Return the optimizer's groups of what trains, with the canonical names of their tensors.

    Weights of the backbone learn at `backbone_lr` times the rate, by `layer_decay` less the nearer
    they are to the image; norms, embeddings and position embeddings do not decay; biases and LoRA
    factors do, as in the Mask DINO recipe and its PEFT fork. What a method added learns at
    `added_lr` times the rate, wherever it stands, times the factor that its module has for it.
    `lr_factors` and `decays` come before these rules (`peft.sites.assign`).

    Raises UserError for an entry that names nothing in the model, and for `layer_decay` of a
    backbone that is no transformer.
    """
    factors = assign(model, hparams.lr_factors, roles, "hparams.lr_factors")
    decays = assign(model, hparams.decays, roles, "hparams.decays")
    layers = layer_factors(model, hparams.layer_decay)
    groups: dict[tuple[float, float], dict[nn.Parameter, str]] = {}
    for name, site in named_weights(model).items():
        weight = site.parameter
        if not weight.requires_grad:
            continue
        factor = getattr(site.module, "lr_factors", {}).get(site.attribute, 1.0)
        if site.added:
            factor *= hparams.added_lr
        elif name.startswith("backbone."):
            factor = hparams.backbone_lr * layers.get(weight, 1.0)
        factor = factors.get(weight, factor)
        decay = decays.get(weight, 0.0 if undecayed(site, hparams) else hparams.weight_decay)
        groups.setdefault((hparams.rate * factor, decay), {}).setdefault(weight, name)
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


def layer_factors(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return decay^(L + 1 - i) for step i of a transformer of L blocks (BEiT, ViTDet).

    Step 0 is the patch embedding, with position code and class token, steps 1 to L are the blocks;
    what follows them, such as a final norm, learns like the head.
    """
    if decay == 1:
        return {}
    if not isinstance(model.backbone, Host):
        raise UserError(f"hparams.layer_decay={decay}: is for transformers; choose 1")
    steps = model.backbone.steps()
    return {
        weight: decay ** (len(steps) - 1 - i)
        for i, step in enumerate(steps)
        for module in step.modules
        for weight in module.parameters()
    }


def undecayed(site: Site, hparams: Hparams) -> bool:
    """Say whether a weight is a norm's, an embedding or a position embedding."""
    positions = POSITIONS if hparams.decay_pos_embed else (*POSITIONS, "pos_embed")
    return isinstance(site.module, NORMS) or site.attribute in positions


class Module(pl.LightningModule):
    """Trains what the PEFT method left trainable; everything random is a function of the step."""

    evaluator: Evaluator  # of the validation that is going on, or of the last one
    keep: Keep | None = None  # takes in what the last validation finds, if it may be the evaluation
    forwards: list[Batch]  # of the optimizer step that is going on
    forward_index: int
    losses: dict[str, Tensor]  # of the forwards before, each divided by their number

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
        """Return AdamW, SGD or LARS over what trains."""
        if self.config.hparams.optimizer is Optimizer["sgd"]:
            return torch.optim.SGD(self.groups, momentum=MOMENTUM)
        if self.config.hparams.optimizer is Optimizer["lars"]:
            return lars(self.groups, MOMENTUM)
        return torch.optim.AdamW(self.groups)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Begin an optimizer step: its learning rate and its forwards."""
        factor = learning_rate_factor(self.config.hparams, self.global_step, self.total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["base_lr"] * factor
        self.forwards = batch.parts(self.config.hparams.images_at_once)
        self.forward_index, self.losses = 0, {}

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Keep the gradients of the forwards before; `optimizer_step` lets go of all of them."""

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take every forward of this step and its gradient, the last one with the optimizer.

        The closure is Lightning's: `training_step` in the run's precision, then backward. Several
        devices add up their gradients at the last forward only.
        """
        assert optimizer_closure is not None
        strategy = self.trainer.strategy
        parallel = isinstance(strategy, ParallelStrategy)
        apart = strategy.block_backward_sync() if parallel else contextlib.nullcontext()
        with apart:
            for _ in self.forwards[1:]:
                optimizer_closure()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.trainer.optimizers[0].zero_grad()  # the next forward needs their memory

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the weighted total as `loss` beside its terms, as means over the forwards.

        A forward adds its share to that of those before, from which no gradient comes any more.
        """
        part, seed = self.forwards[self.forward_index], self.config.seed + 7919 * self.global_rank
        torch.manual_seed(step_seed(seed, self.global_step, self.forward_index))
        with parametrize.cached():  # an edited weight is asked for several times a forward
            terms = self.model.loss(self.model(part.images, part.targets), part.targets)
        n, before = len(self.forwards), self.losses
        losses = before | {name: before.get(name, 0) + term / n for name, term in terms.items()}
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        self.forward_index += 1
        return losses

    def on_validation_start(self) -> None:
        """Begin a new evaluation."""
        self.evaluator = self.config.metrics.evaluator(self.config.data, self.config.data.chosen_on)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Hand what is found on each image of the batch to the evaluator."""
        batch = self.config.metrics.framed(batch)
        keep = self.keep if self.global_step == self.total_steps else None
        take(self.evaluator, batch, self.model.find(batch), keep)

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

"""The typed configuration: what may be said on the command line, and what a run is made of.

Hydra composes `conf/`; every word of a group is a dataclass (words.py), so a mistyped key or value
fails while composing, and everything below `story.py` sees plain typed objects. Nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import II, MISSING, DictConfig, OmegaConf

from segsweep.base.errors import UserError
from segsweep.base.fields import check, default_of, neutral, outside, plain, within
from segsweep.base.hydra_parts import initialized
from segsweep.base.overrides import readable
from segsweep.base.words import GROUPS, files, target_of, without_folders

__all__ = ["neutral", "outside", "plain", "within"]  # for the classes of words

SCHEMA = 1  # of identities and records; raise it only when old runs must not be mistaken for new


@dataclass
class Choice:
    """One word of a config group: `conf/<group>/<name>.yaml` names the class in `_target_`.

    `label` is what tables and figures call it, its word if that is empty, an option's value where
    it says `"{root}"`, of `"{root|train}"` the first that is given. Its class says which options
    stand behind the label always, and how: `shown = {"rank": "r={}"}`; how values are written
    there: `spelling = {"kappa": "κ"}`; and how axes call what stands there: `axes = {"alpha":
    "scale α"}`.
    """

    shown: ClassVar[dict[str, str]] = {}
    spelling: ClassVar[dict[str, str]] = {}
    axes: ClassVar[dict[str, str]] = {}

    name: str = MISSING
    label: str = outside("")


Schedule = Enum(
    "Schedule",
    {"multistep": "multistep", "cosine": "cosine", "linear": "linear", "constant": "constant"},
)
Optimizer = Enum("Optimizer", {"adamw": "adamw", "sgd": "sgd", "lars": "lars"})
Precision = Enum("Precision", {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"})
Accelerator = Enum("Accelerator", {"auto": "auto", "cpu": "cpu", "gpu": "gpu"})
CacheFeatures = Enum("CacheFeatures", {"off": "off", "memory": "memory", "disk": "disk"})


@dataclass
class Hparams(Choice):
    """How a run is optimised: by what, at which rate, on how many images, and for how long."""

    lr: float = II("peft.lr")  # each method brings the paper's default
    weight_decay: float = 0.05
    optimizer: Optimizer = neutral(Optimizer["adamw"])  # sgd and lars have momentum 0.9
    # images of a step that `lr` is for: with others it is in proportion; null = it is for any
    lr_batch: int | None = neutral(None, least=1)
    batch_size: int = within(4, least=1)  # images per optimizer step, over all devices
    # images per forward; each has a loss of its own, a step learns from their mean; null = all
    micro_batch: int | None = neutral(None, least=1)
    epochs: int = within(10, least=1)
    clip: float = II("model.clip")  # L2 norm of the whole gradient; 0 = off
    schedule: Schedule = Schedule["multistep"]
    milestones: list[float] = field(default_factory=lambda: [0.88889, 0.96296])  # of training
    gamma: float = 0.1
    warmup: int = 0  # steps of linear warm-up
    warmup_part: float = neutral(0.0, below=1)  # of training, in place of steps
    # factor on the rate at its first step, 1 at its last; null = from 1 / (warmup + 1), below 1
    warmup_from: float | None = neutral(None, below=1)
    # factor on parameters of the base that train inside the backbone
    backbone_lr: float = II("peft.backbone_lr")
    # factor on what a method adds, wherever it stands
    added_lr: float = neutral(1.0)
    # factor on the backbone for each of its blocks that is nearer to the head (run/module.py)
    layer_decay: float = neutral(1.0, above=0)
    # whether weight decay is for absolute position codes of transformers (pos_embed), too
    decay_pos_embed: bool = neutral(True)
    # validations without a better metric before stopping early
    patience: int | None = within(None, least=1)
    # decay of a moving average of what trains, which is validated and kept in place of the weights
    ema: float | None = neutral(None, above=0, below=1)
    # role of the model or pattern of names -> factor on lr, weight decay (module.parameter_groups)
    lr_factors: dict[str, float] = neutral(default_factory=dict)
    decays: dict[str, float] = neutral(default_factory=dict)

    @property
    def images_at_once(self) -> int:
        """Images of one forward, in training and in evaluation."""
        return self.micro_batch or self.batch_size

    @property
    def rate(self) -> float:
        """The learning rate for a batch of this size."""
        return self.lr * (self.batch_size / self.lr_batch if self.lr_batch else 1)

    def check(self, trainer: Trainer) -> None:
        """Raise UserError for values that do not fit each other, or the devices of a run."""
        if self.warmup and self.warmup_part:
            raise UserError(
                f"hparams.warmup={self.warmup}: hparams.warmup_part={self.warmup_part} says "
                "another one; let one of both be 0"
            )
        if self.warmup_from is not None and not (self.warmup or self.warmup_part):
            raise UserError(
                f"hparams.warmup_from={self.warmup_from}: there is no warm-up; say of how many "
                "steps: hparams.warmup=500"
            )
        devices = trainer.devices * trainer.nodes
        share, rest = divmod(self.batch_size, devices)
        if self.micro_batch is None or not (rest or share % self.micro_batch):
            return
        batch = f"hparams.batch_size={self.batch_size}"
        if rest:
            raise UserError(
                f"{batch}: with hparams.micro_batch={self.micro_batch} each of the {devices} "
                f"devices must have as many images; take a multiple of {self.micro_batch * devices}"
            )
        divisors = ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        raise UserError(
            f"hparams.micro_batch={self.micro_batch}: does not divide the {share} images that a "
            f"device sees in a step ({batch}); choose from {divisors}, or another batch_size"
        )


@dataclass
class Trainer(Choice):
    """On what a run computes; it may change the last bits, so it is part of the identity."""

    accelerator: Accelerator = Accelerator["auto"]
    devices: int = within(1, least=1)  # of each node
    nodes: int = neutral(1, least=1)  # more than one need SLURM
    precision: Precision = Precision["fp32"]
    validate_every: int = within(1, least=1)  # epochs, counted back from the last one
    # batches per epoch and per validation, for trying things out
    limit_train: int | None = within(None, least=1)
    limit_val: int | None = within(None, least=1)
    # where what the frozen beginning of a backbone gives is kept, once per image (run/features.py)
    cache_features: CacheFeatures = neutral(CacheFeatures["off"], identity=lambda where: "kept")
    cross_resume: bool = outside(False)  # go on with what another kind of device has begun


@dataclass
class IO:
    """Everything that cannot change a result: where files go, workers, how talkative a run is."""

    results: str = "results"
    sweep: str | None = None  # name under which a sweep is remembered; default: that of +sweep=
    # processes that load data; null = none beside a CPU, up to 4 beside a GPU, one per thread
    workers: int | None = None
    log_every: int = within(10, least=1)  # steps between two lines of metrics.jsonl
    # steps between two checkpoints inside an epoch; every epoch has one
    save_every: int = within(200, least=1)
    progress: bool = True
    predictions: bool = True  # keep the predictions of the evaluation, one file per run
    features: str = II("io.results") + "/features"  # folder of trainer.cache_features=disk
    # room for features; default: half of what is free
    features_gib: float | None = within(None, above=0)


@dataclass
class Config:
    """One run. `model`, `peft`, `data`, `metrics` hold the dataclass of the chosen word."""

    seed: int = within(0, least=-(2**63), below=2**63)
    repeat: int = neutral(0)  # the same run again: what differs then is noise of the machine
    model: Any = MISSING
    peft: Any = MISSING
    data: Any = MISSING
    hparams: Any = MISSING
    metrics: Any = MISSING
    trainer: Any = MISSING
    logger: Any = outside(MISSING)
    io: IO = field(default_factory=IO, metadata={"outside": True})
    force: bool = outside(False)  # train again although the run is done


def class_named(file: Path, target: str) -> type[Choice]:
    """Return the class that the file of a word names.

    Raises UserError where that is no class of words.
    """
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{file}: _target_: {target!r} cannot be imported ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, Choice) and is_dataclass(kind)):
        raise UserError(f"{file}: _target_: {target!r} is no dataclass derived from Choice")
    return kind


def class_of(group: str, word: Any) -> type[Choice]:
    """Return the class of a word. Raises UserError for a word that is not installed."""
    return class_named(*target_of(group, word))


def words(group: str) -> dict[str, type[Choice]]:
    """Return the class of every word of a config group."""
    return {word: class_of(group, word) for word in files(group)}


def typed(cfg: DictConfig) -> Config:
    """Turn a composed or a frozen config into typed objects, with everything resolved.

    Raises `omegaconf.errors.OmegaConfBaseException` or `UserError` for words that are not
    installed, unknown keys, values of the wrong type, values out of range, and a model, a metric
    or a method that does not fit the data.
    """
    schema, content = OmegaConf.structured(Config), OmegaConf.to_container(cfg)
    assert isinstance(content, dict)
    for group in GROUPS:
        node = content.get(group)
        if not isinstance(node, dict):
            raise UserError(f"{group}: must hold the keys of a word, not {node!r}")
        schema[group] = OmegaConf.structured(class_of(group, node.get("name")))
    config = OmegaConf.to_object(OmegaConf.merge(schema, content))
    assert isinstance(config, Config)
    return fitted(config)


def fitted(config: Config) -> Config:
    """Return a config whose values are in range and whose parts fit each other.

    Raises UserError for others, Unfit where it is the words that do not go together.
    """
    check(config)
    config.data.needs_masks = config.model.masks
    config.model.check(config.data)
    config.metrics.check(config.data, config.model)
    config.peft.check(config.data, config.model)
    config.hparams.check(config.trainer)
    return config


def compose(overrides: list[str]) -> Config:
    """Compose one config from override strings, as the command line does, without running it."""
    import hydra

    overrides = readable(without_folders(overrides))
    with initialized():
        return typed(hydra.compose("train", overrides=overrides))


def identity(value: Any) -> Any:
    """Return what of a typed config can change a result: the input of its fingerprint."""
    if not is_dataclass(value) or isinstance(value, type):
        return plain(value)
    parts: dict[str, Any] = {}
    for f in fields(value):
        item = getattr(value, f.name)
        if f.metadata.get("outside") or (f.metadata.get("neutral") and item == default_of(f)):
            continue
        parts[f.name] = f.metadata.get("identity", identity)(item)
    fingerprint_of_content = getattr(value, "fingerprint", None)
    if callable(fingerprint_of_content):  # data sets are what they hold, not where they lie
        parts["fingerprint"] = fingerprint_of_content()
    return parts


def fingerprint(config: Config) -> str:
    """Return the 12 hexadecimal digits that name a run: same config and data, same digits."""
    content = json.dumps({"schema": SCHEMA, **identity(config)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]

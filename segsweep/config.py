"""The typed configuration: what may be said on the command line, and what a run is made of.

Hydra composes `conf/`; every choice of a group names a dataclass in `_target_`, so a mistyped key
or value fails while composing, and everything below `train.py` sees plain typed objects. Nothing
here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import II, MISSING, DictConfig, OmegaConf

from segsweep.errors import UserError

SCHEMA = 1  # of identities and records; raise it only when old runs must not be mistaken for new


def outside(default: Any) -> Any:
    """Declare a field that cannot change a result, hence is no part of a run's identity."""
    return field(default=default, metadata={"outside": True})


def neutral(default: Any) -> Any:
    """Declare a field that is left out of a run's identity while it has its default value.

    Options that are added later are declared so: old runs keep their names.
    """
    return field(default=default, metadata={"neutral": True})


@dataclass
class Choice:
    """One word of a config group: `conf/<group>/<name>.yaml`, made by the class in `_target_`."""

    _target_: str = outside(MISSING)
    name: str = MISSING


Schedule = Enum("Schedule", {"multistep": "multistep", "cosine": "cosine", "constant": "constant"})
Precision = Enum("Precision", {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"})
Accelerator = Enum("Accelerator", {"auto": "auto", "cpu": "cpu", "gpu": "gpu"})


@dataclass
class Hparams(Choice):
    """How a run is optimised: AdamW, its schedule, and for how long."""

    lr: float = II("peft.lr")  # each method brings the paper's default
    weight_decay: float = 0.05
    batch_size: int = 4  # images per optimizer step, over all devices
    epochs: int = 10
    clip: float = 0.01  # L2 norm of the whole gradient; 0 = off
    schedule: Schedule = Schedule["multistep"]
    milestones: list[float] = field(default_factory=lambda: [0.88889, 0.96296])  # of training
    gamma: float = 0.1
    warmup: int = 0  # steps of linear warm-up
    backbone_lr: float = 0.1  # factor on parameters of the base that train inside the backbone
    patience: int | None = None  # validations without a better metric before stopping early

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        for key in ("batch_size", "epochs"):
            if getattr(self, key) < 1:
                raise UserError(f"hparams.{key}={getattr(self, key)}: must be at least 1")
        if isinstance(self.lr, float) and self.lr < 0:
            raise UserError(f"hparams.lr={self.lr}: must not be negative")


@dataclass
class Trainer(Choice):
    """On what a run computes; it may change the last bits, so it is part of the identity."""

    accelerator: Accelerator = Accelerator["auto"]
    devices: int = 1
    precision: Precision = Precision["fp32"]
    validate_every: int = 1  # epochs
    limit_train: int | None = None  # batches per epoch, for trying things out
    limit_val: int | None = None  # batches per validation, for trying things out

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.devices < 1:
            raise UserError(f"trainer.devices={self.devices}: must be at least 1")


@dataclass
class IO:
    """Everything that cannot change a result: where files go, workers, how talkative a run is."""

    results: str = "results"
    workers: int = 0  # processes that load data
    log_every: int = 10  # steps between two lines of metrics.jsonl
    save_every: int = 200  # steps between two checkpoints inside an epoch; every epoch has one
    progress: bool = True


@dataclass
class Config:
    """One run. `model`, `peft`, `data`, `metrics` hold the dataclass of the chosen word."""

    seed: int = 0
    model: Any = MISSING
    peft: Any = MISSING
    data: Any = MISSING
    hparams: Any = MISSING
    metrics: Any = MISSING
    trainer: Any = MISSING
    logger: Any = outside(MISSING)
    io: IO = field(default_factory=IO, metadata={"outside": True})
    force: bool = outside(False)  # train again although the run is done


def conf_dir() -> str:
    """Return the folder of the configuration: inside the wheel, else beside the package."""
    here = Path(__file__).resolve().parent
    inside, beside = here / "conf", here.parent / "conf"
    return str(inside if inside.is_dir() else beside)


def schema_of(node: Any) -> type | None:
    """Return the dataclass that a config node names in `_target_`, or None."""
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    if not isinstance(target, str):
        return None
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"_target_: {target!r} cannot be imported ({error})") from error
    return found if is_dataclass(found) and isinstance(found, type) else None


def typed(cfg: DictConfig) -> Config:
    """Turn a composed or a frozen config into typed objects, with everything resolved.

    Raises `omegaconf.errors.OmegaConfBaseException` or `UserError` for unknown keys, values of the
    wrong type and values out of range.
    """
    merged = OmegaConf.structured(Config)
    for key, node in cfg.items():
        schema = schema_of(node)
        known = OmegaConf.structured(schema) if schema else merged[key]
        merged[key] = OmegaConf.merge(known, node) if OmegaConf.is_dict(node) else node
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    return config


def compose(overrides: list[str]) -> Config:
    """Compose one config from override strings, as the command line does, without running it."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        return typed(hydra.compose("train", overrides=overrides))


def plain(value: Any) -> Any:
    """Return nested dicts, lists and words of a typed config, ready for YAML and JSON."""
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def identity(value: Any) -> Any:
    """Return what of a typed config can change a result: the input of its fingerprint."""
    if not is_dataclass(value) or isinstance(value, type):
        return plain(value)
    kept: dict[str, Any] = {}
    for f in fields(value):
        item = getattr(value, f.name)
        if f.metadata.get("outside") or (f.metadata.get("neutral") and item == f.default):
            continue
        kept[f.name] = identity(item)
    fingerprint_of_content = getattr(value, "fingerprint", None)
    if callable(fingerprint_of_content):  # data sets are what they hold, not where they lie
        kept["fingerprint"] = fingerprint_of_content()
    return kept


def fingerprint(config: Config) -> str:
    """Return the 12 hexadecimal digits that name a run: same config and data, same digits."""
    content = json.dumps({"schema": SCHEMA, **identity(config)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]

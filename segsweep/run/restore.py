"""A trained model again, from the directory of its run: for predictions, exports and benchmarks.

What the model was told of its classes stands in the record, so its data need not be here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segsweep.base.config import Choice, Config, typed
from segsweep.base.errors import Damaged, UserError
from segsweep.base.explain import choices, explain
from segsweep.base.fields import refuse_references
from segsweep.base.files import misfit
from segsweep.base.words import GROUPS
from segsweep.data.base import Subject
from segsweep.model.files import arrive, at_hand
from segsweep.run.folder import DELTA, verified
from segsweep.run.identity import Run
from segsweep.run.shapes import config_text, record_of

if TYPE_CHECKING:
    from segsweep.data.formats.images import Levels
    from segsweep.model.segmenter import Segmenter
    from segsweep.model.weights import LoadReport
    from segsweep.peft.apply import Counts

NO_CONFIG = (
    *(OmegaConfBaseException, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(OSError, RecursionError, TypeError, ValueError),
)
FINISHED = {"data": {"fingerprint": str, "classes": [str]}, "metrics": dict}
"""What is used of the record of a run that has finished, beside what every record has."""


def load(directory: Path) -> Config:
    """Read the frozen config of a run directory, wherever it lies now.

    Classes follow from its words; those that configs of earlier versions name are not looked at.
    It is resolved, so a reference in it, `${oc.env:HOME}`, is somebody's wish to know something.

    Raises UserError when there is none, or none that this installation can read.
    """
    return _typed(directory, content(directory))


def content(directory: Path) -> DictConfig:
    """Read the frozen config as it stands there, of any version.

    Raises UserError when there is none, and Damaged where it is no config.
    """
    path = directory / "config.yaml"
    text = config_text(directory)
    if text is None:
        raise UserError(f"{path} does not exist: not a run directory")
    try:
        cfg = OmegaConf.create(text)
    except (*NO_CONFIG, YAMLError) as error:
        raise Damaged(path, f"cannot be read as a config ({explain(error)})") from error
    refuse_references(OmegaConf.to_container(cfg), f"{path}: a value")  # before any is looked at
    if not isinstance(cfg, DictConfig) or not all(OmegaConf.is_dict(cfg.get(g)) for g in GROUPS):
        raise Damaged(path, "cannot be read as a config (it has not all groups of words)")
    return cfg


def _typed(directory: Path, cfg: DictConfig) -> Config:
    path = directory / "config.yaml"
    try:
        for group in GROUPS:
            cfg[group].pop("_target_", None)
        config = typed(cfg)
    except Damaged:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except NO_CONFIG as error:  # classes of words are anybody's, and so is what they raise
        raise Damaged(path, f"cannot be read as a config ({explain(error)})") from error
    config.io.results = str(directory.parent.parent)
    return config


def frozen(directory: Path) -> Run:
    """Return the run of a directory.

    Raises UserError when its config names another run now.
    """
    run = Run(load(directory))
    if run.name != directory.resolve().name:
        raise UserError(
            f"{directory}: its config now names the run {run.name}: its data, base weights or a "
            "default changed since it was frozen; give the command line that made it again"
        )
    return run


@dataclass(frozen=True)
class Restored:
    """A finished run with its model in evaluation mode."""

    directory: Path
    config: Config
    record: dict[str, Any]
    model: Segmenter

    @cached_property
    def background(self) -> bool:
        """Whether pixels of label maps may be of no class; raises as `subject`."""
        return subject(self.config, self.record).background

    @property
    def levels(self) -> Levels | None:
        """Black and white of its pictures, None where these have 8 bits."""
        from segsweep.data.formats.images import Levels

        known = self.record["data"].get("levels")
        return Levels(**known) if known else None

    @cached_property
    def run(self) -> Run:
        """The run itself. Raises UserError where its data are gone, or are others now."""
        return same(self.directory, self.config, self.record)


def restore(directory: Path, device: str = "cpu", words: Sequence[str] = ()) -> Restored:
    """Build the model of a finished run with its trained weights, in evaluation mode.

    Args:
        directory: of the run, wherever it lies now.
        device: where the model shall be.
        words: `data.root=...` and other places of data that have moved.

    Raises:
        UserError: the run has not finished, its weights were deleted or are not those of its
            record, the base weights are gone or are others now.
    """
    config, record = finished(directory, words)
    classes = record["data"]["classes"]
    delta = verified(directory, record, DELTA) if record["params"]["trainable"] else None
    at_hand(config.model.weights)
    from segsweep.peft.delta import load_delta

    model, _, _ = assemble(config, classes, subject(config, record))
    if delta:
        load_delta(delta, model)
    return Restored(directory, config, record, model.to(device).eval())


def subject(config: Config, record: dict[str, Any]) -> Subject:
    """Return what the model of a run was built to find, from its record where that knows it.

    Raises UserError where neither the record says so nor the data are here.
    """
    known = record["data"]
    texts = known.get("prompts") or config.data.texts()  # of records before prompts
    background = known.get("background")
    if background is None:
        background = config.data.background
    return Subject(tuple(texts), config.data.task, background)


def assemble(
    config: Config, classes: list[str], subject: Subject
) -> tuple[Segmenter, LoadReport, Counts]:
    """Build the model of a config, load the base weights, apply the method: ready to be trained."""
    from segsweep.peft.apply import apply

    model, loaded = base(config, classes, subject)
    return model, loaded, apply(model, config.peft, config.model.roles)


def base(config: Config, classes: list[str], subject: Subject) -> tuple[Segmenter, LoadReport]:
    """Build what a run of a config starts from: base weights, and what is drawn with its seed."""
    import torch

    arrive(config.model.weights)
    torch.manual_seed(config.seed)
    model = config.model.build(subject)
    return model, config.model.load(model, classes, config.seed)


def rehearse(config: Config, classes: list[str], subject: Subject) -> None:
    """Do what `assemble` does on the meta device: shapes only, nothing is drawn or copied.

    Raises UserError for weights, a method, or factors of `hparams` that do not fit the model.
    """
    import torch

    from segsweep.peft.apply import apply
    from segsweep.run.module import parameter_groups

    arrive(config.model.weights)  # files that may say the sizes of the model
    backbone = replace(config.model.backbone, pretrained=False)
    family = replace(config.model, backbone=backbone)
    with contextlib.suppress(NotImplementedError, RuntimeError):  # in earnest, it may be possible
        with torch.device("meta"):
            model = family.build(subject)
        family.load(model, classes, config.seed)
        apply(model, config.peft, family.roles)
        parameter_groups(model, config.hparams, family.roles)


def finished(directory: Path, words: Sequence[str] = ()) -> tuple[Config, dict[str, Any]]:
    """Read config and record of a finished run; `words` say where its data lie now.

    Raises UserError where there is no record, and for words that are no places of data.
    """
    cfg, record = content(directory), record_of(directory)
    if record is None:
        raise UserError(f"{directory}: has no record.json; its run has not finished")
    frozen_then = json.loads(json.dumps(OmegaConf.to_container(cfg)))  # keys as JSON has them
    for key in ("seed", *GROUPS):
        if key != "logger" and _said(frozen_then, key) != _said(record["config"], key):
            raise Damaged(
                directory / "config.yaml",
                f"says another {key} than record.json, so one of both was changed",
            )
    if fault := misfit(record, FINISHED):
        raise Damaged(directory / "record.json", fault.removeprefix("."))
    config = _typed(directory, cfg)
    for word in words:
        move(config.data, word)
    return config, record


def _said(config: dict[str, Any], key: str) -> Any:
    """Return a value or group of a config, without the class that earlier versions named."""
    value = config.get(key)
    return {k: v for k, v in value.items() if k != "_target_"} if isinstance(value, dict) else value


def move(data: Any, word: str) -> None:
    """Follow `data.root=...` in a config: only what is no part of a run's identity may change.

    Raises UserError for anything else.
    """
    key, _, value = word.partition("=")
    labels = {f.name for f in fields(Choice)}  # of any word, no place
    outside = [f.name for f in fields(data) if f.metadata.get("outside") and f.name not in labels]
    places = [f"data.{name}" for name in outside if isinstance(getattr(data, name), str | None)]
    if key not in places:
        raise UserError(
            f"{word}: a finished run stays as it is; only where data={data.name} lies may be said"
            + (choices(key, places) or ", and it has no place")
        )
    setattr(data, key.removeprefix("data."), value or None)


def same(directory: Path, config: Config, record: dict[str, Any]) -> Run:
    """Return the run of a directory, if its data are still those of its record.

    Raises UserError where they are gone or others.
    """
    now, then = config.data.fingerprint(), record["data"]["fingerprint"]
    if now != then:
        raise UserError(
            f"{directory}: data={config.data.name} changed since the run ({then} then, {now} "
            "now); say where the old ones lie, as in data.root=FOLDER"
        )
    run = Run(config)
    if "weights" not in record:  # an earlier version named it; its delta knows its base
        run.id, run.name = record["id"], record["name"]
    if run.id != record["id"]:
        raise UserError(
            f"{directory}: its config now names the run {run.name}: its base weights or a default "
            "changed since it was frozen; give the command line that made it again"
        )
    run.directory = directory
    return run

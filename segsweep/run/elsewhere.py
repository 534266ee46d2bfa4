"""A finished run on data that it was not trained on: the same weights, judged on another set.

    results/elsewhere/<run>/<data>-<key>/
      config.yaml            the run's, with other data and the metric that judges there
      predictions.jsonl.gz   what it found there, image by image
      record.json            what it reaches there; `judges` names the run

Such a folder has the form of a run's, so whatever reads files reads it: `analyse`, `compare`. It
lies beside the runs, not among them, so nothing takes it for one that was trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from segsweep.base.config import Choice, Config, fingerprint, plain, typed
from segsweep.base.errors import Damaged, UserError
from segsweep.base.explain import explained
from segsweep.base.hydra_parts import initialized
from segsweep.base.overrides import readable
from segsweep.data.base import DataSet
from segsweep.run.folder import DELTA, ELSEWHERE, known_hash, verified
from segsweep.run.identity import Run
from segsweep.run.restore import content, finished, subject
from segsweep.run.shapes import record_of
from segsweep.task.base import kind

OF_SETS = ("slices", *(f.name for f in fields(Choice)))
"""What all sets can be told, and each has its own."""


class Elsewhere(Run):
    """A finished run on other data: a folder of its own, and no training."""

    def __init__(self, directory: Path, record: dict[str, Any], config: Config) -> None:
        super().__init__(config)
        self.trained, self.trained_record = directory, record
        said = f"{record['id']} on {fingerprint(config)}"
        self.id = hashlib.sha256(said.encode()).hexdigest()[:12]
        self.name = f"{config.data.name}-{self.id}"
        self.directory = directory.parent.parent / ELSEWHERE / directory.name / self.name

    @property
    def judges(self) -> dict[str, Any]:
        """Which run is judged, by which of its weights."""
        record = self.trained_record
        return {
            "run": record["id"],
            "name": self.trained.name,
            "data": record["data"]["fingerprint"],
            "delta": known_hash(record, DELTA),
        }

    def known(self) -> dict[str, Any] | None:
        """Return the record that is there, if it is about these weights and can be read."""
        try:
            record = record_of(self.directory) or {}
        except Damaged:  # it is written again
            return None
        return record if record.get("judges") == self.judges else None


def elsewhere(directory: Path, data: str, metrics: str | None, words: Sequence[str]) -> Elsewhere:
    """Return a finished run on the set of a word; nothing of it is computed.

    Args:
        directory: of the run.
        data: the word of the set.
        metrics: a word, by default the run's own metric as the run has it.
        words: `data.KEY=VALUE` and `metrics.KEY=VALUE`. How pictures reach the network is as in
            training where these do not say otherwise.

    Raises:
        UserError: the run has not finished, or its weights are gone; the set has other classes, or
            what the metric or the model cannot judge; it is the run's own, by its own metric.
    """
    config, record = finished(directory)
    if record["params"]["trainable"]:
        verified(directory, record, DELTA)
    other = _typed(directory, composed(content(directory), data, metrics, words))
    _same_subject(directory, config, record, other)
    own = record["data"]["fingerprint"], plain(config.metrics)
    if own == (other.data.fingerprint(), plain(other.metrics)):
        raise UserError(
            f"{directory.name} was trained on these data, and its record.json judges it"
        )
    other.data.records("val")
    return Elsewhere(directory, record, other)


def composed(
    cfg: DictConfig, data: str, metrics: str | None, words: Sequence[str]
) -> dict[str, Any]:
    """Return the config of a run with other data and metric; see `elsewhere`."""
    import hydra

    for word in words:
        if word.partition(".")[0] not in ("data", "metrics"):
            raise UserError(f"{word}: only data and metrics may be said; the rest is the run's")
    said = {word.partition("=")[0] for word in words}
    chosen = [f"model={cfg.model.name}", f"data={data}", f"metrics={metrics or cfg.metrics.name}"]
    with explained(), initialized():
        new = hydra.compose("train", overrides=readable([*chosen, *words]))
        groups = {g: OmegaConf.to_container(new[g], resolve=True) for g in ("data", "metrics")}
    whole: Any = OmegaConf.to_container(cfg)
    kept = {"data": [f.name for f in fields(DataSet) if f.name not in OF_SETS]}
    kept["metrics"] = [] if metrics else [*whole["metrics"]]
    for group, keys in kept.items():
        own = {k: whole[group][k] for k in keys if k in whole[group] and f"{group}.{k}" not in said}
        whole[group] = {**_plain(groups[group]), **own}
    return whole


def _plain(group: Any) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "_target_"}


def _typed(directory: Path, whole: dict[str, Any]) -> Config:
    for group in whole.values():
        if isinstance(group, dict):
            group.pop("_target_", None)
    with explained():
        config = typed(OmegaConf.create(whole))
    config.io.results = str(directory.parent.parent)
    return config


def _same_subject(directory: Path, config: Config, record: dict[str, Any], other: Config) -> None:
    """Raise UserError where the other set asks for something else than the run learnt."""
    here, there = f"{directory.name} (data={config.data.name})", f"data={other.data.name}"
    if config.data.task != other.data.task:
        learnt, wanted = (kind(each.data.task).finds for each in (config, other))
        raise UserError(f"{here} learnt {learnt}, but {there} has {wanted}; name a set of {learnt}")
    learnt, wanted = record["data"]["classes"], other.data.classes()
    if learnt != wanted:
        raise UserError(
            f"{here} cannot be judged on {there}, which has other classes, or has them in another "
            f"order:\n  of the run: {', '.join(learnt)}\n  of the set: {', '.join(wanted)}"
        )
    background = subject(config, record).background
    if kind(config.data.task).dense and background != other.data.background:
        has, lacks = (here, there) if background else (there, here)
        raise UserError(f"{has} has background, and {lacks} has none; they cannot judge each other")

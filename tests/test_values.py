"""Every number of every config class: a value that could only fail later is refused by its key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, compose
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.fields import check, default_of
from segsweep.base.words import GROUPS, files
from segsweep.run.identity import Run
from segsweep.run.restore import load
from segsweep.story import train
from segsweep.sweeps.commands import words_of
from tests.words import class_of

NUMBER = re.compile(r"\b(int|float)\b")
PROBES = (0, -1, math.nan, math.inf)
HARMLESS = {  # what may be 0, and does no harm even if all of it is 0 at once
    "data.longest": 0, "data.labels": {}, "data.ignore_label": [], "data.background_label": [],
    "data.mean": [0, 0, 0], "peft.backbone_lr": 0, "hparams.backbone_lr": 0, "hparams.clip": 0,
    "hparams.added_lr": 0, "model.score_threshold": 0, "model.mask_threshold": 0,
    "model.nms_threshold": 0, "model.mask_weight": 0, "model.dropout": 0,
    "hparams.decays": {"head": 0}, "hparams.gamma": 0, "hparams.lr": 0,
    "hparams.lr_factors": {"head": 0},
    "hparams.milestones": [0, 0], "hparams.warmup": 0, "hparams.warmup_from": 0,
    "hparams.warmup_part": 0,
    "hparams.weight_decay": 0, "io.workers": 0,
    "model.backbone.drop_path": 0, "model.clip": 0, "model.dn_noise": 0, "model.dn_number": 0,
    "model.extra_levels": 0, "model.loss.bbox": 0, "model.loss.ce": 0, "model.loss.dice": 0,
    "model.loss.giou": 0, "model.loss.mask": 0, "peft.drop": [0],
    "peft.drop_path": 0, "peft.dropout": 0, "peft.lr": 0, "repeat": 0, "seed": 0,
}  # fmt: skip
TINY = [
    "data=digits", "data.train=4", "data.val=2", "data.size=[64,64]", "hparams.batch_size=2",
    "hparams.epochs=1", "model.weights=null", "model.queries=8", "model.points=16",
    "trainer.accelerator=cpu", "io.progress=false",
]  # fmt: skip
CHECKED = {  # on the command line, before anything else is done
    "io.log_every=0": "io.log_every=0: must be at least 1",
    "io.save_every=0": "io.save_every=0: must be at least 1",
    "trainer.validate_every=0": "trainer.validate_every=0: must be at least 1",
    "trainer.limit_train=-1": "trainer.limit_train=-1: must be at least 1",
    "hparams.patience=0": "hparams.patience=0: must be at least 1",
    "hparams.ema=0": "hparams.ema=0.0: must be more than 0",
    "hparams.ema=1": "hparams.ema=1.0: must be less than 1",
    "hparams.lr=nan": "hparams.lr=nan: must be a finite number",
    "hparams.milestones=[0.5,inf]": r"hparams.milestones=\[0.5, inf\]: each must be a finite",
    "model.backbone.drop_path=1": "model.backbone.drop_path=1.0: must be less than 1",
    "model.levels=[]": r"model.levels=\[\]: choose one or more of res2",
    "data.size=256": r"^data\.size=256: must be a list, as in data\.size=\[256,256\]$",
    "hparams.milestones=a": r"must be a list, as in hparams\.milestones=\[a\]$",
    "hparams.epochs=zwei": "^hparams.epochs=zwei: must be a whole number$",
    "hparams.epochs=null": "^hparams.epochs=null: must have a value$",
    "hparams.lr=viel": "^hparams.lr=viel: must be a number$",
    "io.progress=nope": "^io.progress=nope: must be true or false$",
    "hparams.lr_factors=3": r"must be pairs, as in hparams\.lr_factors=\{NAME:VALUE\}$",
    "io=3": "^io=3: has keys of its own, and no value$",
    "peft.label=[1]": r"^peft\.label=\[1\]: must be a text$",
    "trainer.precision=fp8": "^trainer.precision=fp8: must be one of fp32, bf16, fp16$",
    "data.size=[32,32]": r"model.queries=40: images of data.size=\[32, 32\] have 22 tokens",
    "model.backbone.kwargs.stem_width=nan": "model.backbone.kwargs=.*: each must be a finite",
}  # fmt: skip


def numbers(kind: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield place and default of the fields of a config class that hold numbers."""
    hints = get_type_hints(kind)
    for f in fields(kind):
        if is_dataclass(inner := hints[f.name]):
            yield from numbers(inner, (*path, f.name))  # pyright: ignore[reportArgumentType]
        elif NUMBER.search(hint := str(hints[f.name])):
            default = default_of(f)
            yield (*path, f.name), [1, 1] if default is None and "list" in hint else default


def probed(default: Any, probe: float) -> Any:
    """Put a probe where a value has a number."""
    if isinstance(default, list):
        return [probe, *default[1:]]
    return {"x": probe} if isinstance(default, dict) else probe


def resolved(config: Any) -> Any:
    """Give values that follow others in a composed config one of their own."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            resolved(value)
        elif isinstance(value, str) and "${" in value:
            setattr(config, f.name, 1)
    return config


def refusal(kind: type, place: str, path: tuple[str, ...], value: Any) -> str:
    """Return what is said of a config whose one value is this, empty if nothing is."""
    config = owner = resolved(kind())
    for name in path[:-1]:
        owner = getattr(owner, name)
    setattr(owner, path[-1], value)
    try:
        for part in (owner, config):
            getattr(part, "__post_init__", lambda: None)()
        check(config, place)
    except UserError as error:
        return str(error)
    return ""


def test_no_number_of_any_config_class_fails_later() -> None:
    kinds = {class_of(group, word): f"{group}." for group in GROUPS for word in files(group)}
    cases = 0
    for kind, place in {**kinds, Config: ""}.items():
        for path, default in numbers(kind):
            key = place + ".".join(path)
            for probe in PROBES:
                said = refusal(kind, place, path, probed(default, probe))
                harmless = key in HARMLESS and (probe == 0 or (probe, key) == (-1, "seed"))
                allowed = harmless or probe == default
                assert bool(said) != allowed, (kind, key, probe, said)
                assert allowed or key in said
                cases += 1
    assert cases > 600


def test_what_may_be_zero_does_no_harm(tmp_path) -> None:
    """All of it at once: a run trains, validates and is recorded."""
    config = compose([*TINY, f"io.results={tmp_path}"])
    for key, value in HARMLESS.items():
        owner: Any = config
        *path, last = key.split(".")
        for name in path:
            owner = getattr(owner, name)
        if hasattr(owner, last):
            setattr(owner, last, value)
    record = Run(config).once(train)
    assert record["status"] == "done"
    assert record["weights"] == {
        "source": None, "sha256": None, "verified": None, "tensors": 0, "drawn": []
    }  # fmt: skip
    assert (record["device"]["kind"], record["device"]["trained_on"]) == ("cpu", ["cpu"])
    assert record["data"]["not_hashed"] is None  # all of the digits is drawn
    assert record["device"]["threads"] > 0


@pytest.mark.parametrize("word", CHECKED)
def test_values_are_refused_before_anything_is_done(word: str) -> None:
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as error:
        compose(["model=maskdino_tiny", "data=digits", word])
    assert re.search(CHECKED[word], explain(error.value)), explain(error.value)


@pytest.mark.parametrize("reference", ["${oc.env:S3CRET}", "${io.results}", "a${oc.decode:x}"])
@pytest.mark.parametrize("key", ["model", "hparams.lr", "data.prompts", "io.features", "peft.name"])
def test_references_of_a_foreign_config_are_not_resolved(tmp_path, monkeypatch, key, reference):
    monkeypatch.setenv("S3CRET", "tell")
    run = Run(compose([*TINY, f"io.results={tmp_path}/results"]))
    run.directory.mkdir(parents=True)
    run.prepare()
    file = run.directory / "config.yaml"
    content = OmegaConf.load(file)
    value = {"digit": reference} if key == "data.prompts" else reference
    OmegaConf.update(content, key, value, merge=False)
    OmegaConf.save(content, file)
    with pytest.raises(UserError) as error:
        load(run.directory)
    assert "is a reference" in str(error.value)
    assert "tell" not in str(error.value)
    assert str(file) in str(error.value)


def test_references_of_foreign_words_are_not_resolved(monkeypatch) -> None:
    monkeypatch.setenv("S3CRET", "0.25")
    config = {"hparams": {"lr": "${oc.env:S3CRET}"}}
    for words, known in (("hparams.lr=${oc.env:S3CRET}", {}), ("", config)):
        with pytest.raises(UserError, match="is a reference") as error:
            words_of({"name": "x", "id": "y", "config": known}, words)
        assert "0.25" not in str(error.value)

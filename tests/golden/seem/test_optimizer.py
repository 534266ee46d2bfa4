"""What the released trainer told AdamW of every parameter, and when it lowered the rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segsweep.base.config import Config, compose
from segsweep.data.base import Subject
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.run.module import learning_rate_factor, parameter_groups

pytestmark = pytest.mark.golden
LAYERS = {  # of the recorded model, by the name of a weight that each of them has
    "model.encoder_layers": "sem_seg_head.pixel_decoder.transformer.encoder.layers.{}.norm1.bias",
    "model.decoder_layers": "sem_seg_head.predictor.transformer_ffn_layers.{}.norm.bias",
    "model.text.layers": "sem_seg_head.predictor.lang_encoder.lang_encoder.resblocks.{}.ln_1.bias",
}


@pytest.fixture(scope="module")
def recorded(golden) -> dict[str, Any]:
    return golden.json("optimizer_groups.full_head")


@pytest.fixture(scope="module")
def built(recorded) -> tuple[Segmenter, Config]:
    """Full head with the released recipe; weights without numbers."""
    names = recorded["groups"]
    layers = [
        f"{key}={next(i for i in range(1000) if name.format(i) not in names)}"
        for key, name in LAYERS.items()
    ]
    config = compose([
        "model=seem_focall", "model.text_encoder=trained", "peft=full_head",
        "hparams=seem_released", *layers,
    ])  # fmt: skip
    with torch.device("meta"):
        model = config.model.build(Subject(["one"]))
    apply(model, config.peft, config.model.roles)
    return model, config


def test_every_parameter_has_the_released_rate_and_decay(built, recorded):
    model, config = built
    groups = parameter_groups(model, config.hparams, config.model.roles)
    told = {
        name: {"lr": pytest.approx(g["lr"]), "weight_decay": pytest.approx(g["weight_decay"])}
        for g in groups
        for name in g["names"]
    }
    assert config.hparams.lr == recorded["base_lr"]
    assert told.keys() == recorded["groups"].keys()
    assert told == recorded["groups"]
    assert len(groups) == len({tuple(told.values()) for told in recorded["groups"].values()})


def test_our_own_rule_leaves_text_norms_and_positions_without_decay(built, recorded):
    model, config = built
    config = compose([f"hparams.lr={config.hparams.lr}", "peft=full_head"])
    groups = parameter_groups(model, config.hparams, config.model.roles)
    decays = {name: g["weight_decay"] for g in groups for name in g["names"]}
    other = {n for n, told in recorded["groups"].items() if told["weight_decay"] != decays[n]}
    assert other
    assert all(".ln_" in name or name.endswith(".positional_embedding") for name in other)


def test_rates_fall_at_the_released_updates(built, recorded):
    _, config = built
    total, rate, falls = recorded["updates"], None, []
    for step in range(total):
        now = config.hparams.lr * learning_rate_factor(config.hparams, step, total)
        if now != rate:
            falls.append([step, now])
        rate = now
    assert [step for step, _ in falls] == [step for step, _ in recorded["lr_changes_of_group_0"]]
    expected = [rate for _, rate in recorded["lr_changes_of_group_0"]]
    assert [rate for _, rate in falls] == pytest.approx(expected)


def test_the_rest_of_the_recipe_is_the_published_one(built, golden):
    _, config = built
    recipe, hparams = golden.json("paper_recipe"), config.hparams
    optimizer, schedule = recipe["optimizer"], recipe["schedule"]
    assert hparams.weight_decay == optimizer["weight_decay"]
    assert f" {hparams.clip} " in optimizer["gradient_clipping"]
    assert hparams.batch_size == recipe["batch_size_total"]
    assert hparams.milestones == schedule["milestones_fraction_of_max_iter"]
    assert hparams.gamma == schedule["gamma"]
    assert (hparams.warmup, schedule["warmup_factor"]) == (0, 1)

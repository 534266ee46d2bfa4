"""Learning rates, decay groups and seeds: pure functions of config and step."""

import math

import pytest

from segsweep.config import Hparams, Schedule, compose
from segsweep.module import learning_rate_factor, parameter_groups, step_seed
from segsweep.peft.base import apply


def hparams(**changes) -> Hparams:
    return Hparams("", "x", **({"lr": 1e-3} | changes))


def test_multistep_falls_at_the_official_milestones():
    factors = [learning_rate_factor(hparams(), step, 1000) for step in (0, 888, 889, 962, 963, 999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_linearly_and_cosine_ends_near_zero():
    h = hparams(schedule=Schedule["cosine"], warmup=4)
    assert [learning_rate_factor(h, s, 104) for s in range(4)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8]
    )
    assert learning_rate_factor(h, 4, 104) == 1
    assert learning_rate_factor(h, 54, 104) == pytest.approx(0.5)
    assert learning_rate_factor(h, 103, 104) < 1e-3


@pytest.fixture
def model():
    config = compose(["peft=lora", "model.weights=null"])
    built = config.model.build(10)
    apply(built, config.peft, config.model.roles)
    return built


def test_every_trained_tensor_is_in_one_group(model):
    groups = parameter_groups(model, hparams())
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}


def test_norms_and_embeddings_do_not_decay_but_biases_and_factors_do(model):
    model.requires_grad_(True)
    decay = {
        id(p): group["weight_decay"]
        for group in parameter_groups(model, hparams(weight_decay=0.05))
        for p in group["params"]
    }
    predictor = model.sem_seg_head.predictor
    assert decay[id(predictor.label_enc.weight)] == 0
    assert decay[id(predictor.decoder_norm.bias)] == 0
    assert decay[id(predictor.class_embed.bias)] == 0.05
    factors = [p for name, p in model.named_parameters() if "parametrizations" in name]
    assert factors
    assert {decay[id(p)] for p in factors} == {0.05}


def test_the_backbone_learns_slower_where_its_own_weights_train(model):
    model.requires_grad_(True)
    rate = {
        id(p): group["lr"]
        for group in parameter_groups(model, hparams(backbone_lr=0.1))
        for p in group["params"]
    }
    assert rate[id(next(model.backbone.parameters()))] == pytest.approx(1e-4)
    assert rate[id(next(model.sem_seg_head.parameters()))] == pytest.approx(1e-3)


def test_seeds_of_steps_differ_and_repeat():
    seeds = [step_seed(seed, step) for seed in range(3) for step in range(100)]
    assert len(set(seeds)) == 300
    assert seeds[7] == step_seed(0, 7)
    assert all(0 <= s < math.inf for s in seeds)

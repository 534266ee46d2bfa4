"""Learning rates, decay groups and seeds: pure functions of config and step."""

import json
import math
from typing import Any

import pytest
import torch

from segsweep.base.config import Config, Hparams, Schedule, compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.peft.delta import delta_state_dict
from segsweep.run.module import learning_rate_factor, parameter_groups, step_seed
from segsweep.run.record import folded, optimizer_facts


def hparams(**changes: Any) -> Hparams:
    fields: dict[str, Any] = {"lr": 1e-3} | changes
    return Hparams("x", **fields)


def test_multistep_falls_at_the_official_milestones():
    factors = [learning_rate_factor(hparams(), step, 1000) for step in (0, 887, 888, 961, 962, 999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_linearly_and_cosine_ends_near_zero():
    h = hparams(schedule=Schedule["cosine"], warmup=4)
    assert [learning_rate_factor(h, s, 104) for s in range(4)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8]
    )
    assert learning_rate_factor(h, 4, 104) == 1
    assert learning_rate_factor(h, 54, 104) == pytest.approx(0.5)
    assert learning_rate_factor(h, 103, 104) < 1e-3


def built(*words: str) -> tuple[Segmenter, Config]:
    config = compose(["model.weights=null", *words])
    model = config.model.build(config.data.subject())
    apply(model, config.peft, config.model.roles)
    return model, config


def told(model: Segmenter, config: Config) -> dict[str, tuple[float, float]]:
    """Learning rate and decay of every trained tensor by its canonical name."""
    groups = parameter_groups(model, config.hparams, config.model.roles)
    return {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}


def rates(*words: str) -> dict[str, float]:
    return {name: lr for name, (lr, _) in told(*built(*words)).items()}


@pytest.mark.parametrize("peft", ["lora", "adapter", "full_head"])
def test_every_trained_tensor_is_in_one_group_under_its_name(peft):
    model, config = built(f"peft={peft}")
    groups = parameter_groups(model, config.hparams, config.model.roles)
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}
    named = {n: p for g in groups for n, p in zip(g["names"], g["params"], strict=True)}
    delta = delta_state_dict(model)
    assert named.keys() <= delta.keys()
    assert all(torch.equal(p, delta[name]) for name, p in named.items())


def test_norms_and_embeddings_do_not_decay_but_biases_and_factors_do():
    model, config = built("peft=lora")
    model.requires_grad_(True)
    decay = {name: decay for name, (_, decay) in told(model, config).items()}
    predictor = "sem_seg_head.predictor."
    assert decay[predictor + "label_enc.weight"] == 0
    assert decay[predictor + "decoder_norm.bias"] == 0
    assert decay[predictor + "class_embed.bias"] == 0.05
    factors = {d for name, d in decay.items() if name.endswith(("lora_A", "lora_B"))}
    assert factors == {0.05}


def test_the_backbone_learns_slower_where_its_own_weights_train():
    model, config = built("peft=lora", "hparams.lr=1e-3", "hparams.backbone_lr=0.1")
    model.requires_grad_(True)
    found = {(n.split(".")[0], lr) for n, (lr, _) in told(model, config).items()}
    assert found == {("backbone", 1e-3 * 0.1), ("sem_seg_head", 1e-3)}


def test_what_a_method_adds_to_the_backbone_learns_at_the_full_rate():
    words = "model=maskdino_swinl", "peft=lora", "peft.targets=[backbone.*.qkv.weight]"
    with torch.device("meta"):
        found = rates(*words, "hparams.lr=1e-3")
    assert {lr for name, lr in found.items() if name.startswith("backbone.")} == {1e-3}


WIDE, NARROW = "sem_seg_head.predictor.*: 0.5", "*.mask_embed.*: 0.1"


@pytest.mark.parametrize("entries", [f"{WIDE},{NARROW}", f"{NARROW},{WIDE}"])
def test_of_the_factors_that_name_a_weight_the_narrowest_counts(entries):
    words = "peft=full_head", "hparams.lr=1e-3", f"hparams.lr_factors={{{entries}}}"
    found = rates(*words)
    for name, lr in found.items():
        factor = 0.1 if ".mask_embed." in name else 0.5 if ".predictor." in name else 1.0
        assert lr == pytest.approx(1e-3 * factor), name
    assert len({*found.values()}) == 3


def test_a_factor_may_name_a_role_and_comes_before_the_one_of_the_backbone():
    model, config = built("hparams.lr=1", "hparams.lr_factors={embeddings: 0.2, backbone.*: 3}")
    model.requires_grad_(True)
    found = {name: lr for name, (lr, _) in told(model, config).items()}
    assert found["sem_seg_head.predictor.class_embed.weight"] == pytest.approx(0.2)
    assert found["sem_seg_head.predictor._bbox_embed.layers.0.bias"] == pytest.approx(0.2)
    assert found["sem_seg_head.predictor.decoder_norm.weight"] == 1
    assert {lr for name, lr in found.items() if name.startswith("backbone.")} == {3}


def test_factors_may_fall_from_block_to_block():
    factors = {f"backbone.layers.2.blocks.{i}.*": 0.7 ** (18 - i) for i in range(18)}
    with torch.device("meta"):
        model, config = built("model=maskdino_swinl", "peft=frozen", "hparams.lr=1")
    config.hparams.lr_factors = {"backbone.*": 0.7**19, **factors}
    model.requires_grad_(True)
    found = {name: lr for name, (lr, _) in told(model, config).items()}
    assert found["backbone.patch_embed.proj.weight"] == pytest.approx(0.7**19)
    assert found["backbone.layers.2.blocks.1.mlp.fc1.weight"] == pytest.approx(0.7**17)
    assert found["backbone.layers.2.blocks.17.norm1.bias"] == pytest.approx(0.7)
    assert found["sem_seg_head.predictor.class_embed.weight"] == 1


@pytest.mark.parametrize("words", [
    ["peft=lora"], ["peft=adapter"],
])  # fmt: skip
def test_a_factor_on_base_weights_leaves_out_what_a_method_added(words):
    entries = "hparams.lr_factors={sem_seg_head.*: 0.1}"
    model, config = built(*words, "hparams.lr=1e-3", entries)
    found = {name: lr for name, (lr, _) in told(model, config).items()}
    added = {name for name in found if "lora_" in name or ".filling." in name}
    assert added
    assert {found[name] for name in added} == {1e-3}
    assert {found[name] for name in found.keys() - added} == {1e-3 * 0.1}


def test_what_a_method_added_may_be_named_by_itself():
    entries = ["hparams.lr_factors={*.lora_B: 16}", "hparams.decays={*.lora_?: 0}"]
    found = told(*built("peft=lora", "hparams.lr=1e-4", *entries))
    assert {v for n, v in found.items() if n.endswith("lora_B")} == {(1e-4 * 16, 0)}
    assert {v for n, v in found.items() if n.endswith("lora_A")} == {(1e-4, 0)}
    assert {v for n, v in found.items() if "lora" not in n} == {(1e-4, 0.05)}


def test_decays_come_before_the_rule_for_norms():
    found = told(*built("peft=decoder_only", "hparams.decays={*.decoder_norm.*: 0.3, *.bias: 0}"))
    decay = {name.removeprefix("sem_seg_head.predictor."): d for name, (_, d) in found.items()}
    assert decay["decoder_norm.weight"] == decay["decoder_norm.bias"] == 0.3
    assert decay["class_embed.bias"] == 0
    assert decay["class_embed.weight"] == 0.05
    assert decay["label_enc.weight"] == 0


def test_frozen_weights_may_be_named_but_no_weight_must_not():
    assert rates("peft=embeddings_only", "hparams.lr_factors={*.pixel_decoder.*: 0.1}")
    near = "did you mean 'sem_seg_head.predictor.class_embed.weight'"
    with pytest.raises(UserError, match=rf"hparams.decays: '\*.class_embd.weight'.*{near}"):
        rates("hparams.decays={*.class_embd.weight: 0}")
    with pytest.raises(UserError, match=r"hparams.lr_factors: 'embedings' is no role.*embeddings"):
        rates("hparams.lr_factors={embedings: 0.1}")
    model, config = built("peft=full_head")
    config.hparams.lr_factors["*.self_attn.in_proj_weight:q"] = 0.1  # a tensor has one rate
    with pytest.raises(UserError, match=r"in_proj_weight:q' matches none"):
        told(model, config)
    with pytest.raises(
        UserError, match=r"hparams.lr_factors=\{'embeddings': -0.1\}: each must not"
    ):
        compose(["hparams.lr_factors={embeddings: -0.1}"])


def test_entries_make_another_run_in_any_order_and_none_do_not():
    def key(*words: str) -> str:
        return fingerprint(compose([*words]))

    assert key() == key("hparams.lr_factors={}", "hparams.decays={}")
    one, other = "embeddings: 0.1", "*.mask_embed.*: 0.2"
    assert key(f"hparams.lr_factors={{{one},{other}}}") == key(
        f"hparams.lr_factors={{{other},{one}}}"
    )
    assert len({key(f"hparams.{k}={{{one}}}") for k in ("lr_factors", "decays")} | {key()}) == 3


def expanded(name: str) -> list[str]:
    """The names that a shell makes of one with braces."""
    before, found, after = name.partition("{")
    if not found:
        return [name]
    span, _, after = after.partition("}")
    first, last = map(int, span.split(".."))
    return [n for i in range(first, last + 1) for n in expanded(f"{before}{i}{after}")]


@pytest.mark.parametrize("peft", ["lora", "adapter", "full_head", "frozen"])
def test_the_record_names_every_trained_tensor_with_its_rate_and_decay(peft):
    words = "peft.repeats=2" if peft == "adapter" else "hparams.lr_factors={embeddings: 0.1}"
    model, config = built(f"peft={peft}", words)
    groups = optimizer_facts(parameter_groups(model, config.hparams, config.model.roles))
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in groups
        for folded in group["tensors"]
        for name in expanded(folded)
    }
    assert found == told(model, config)
    assert sum(g["parameters"] for g in groups) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    lines = sum(len(g["tensors"]) for g in groups)
    assert lines < max(1, len(found)) or peft == "frozen"
    json.dumps(groups)


def test_names_are_folded_only_where_no_number_is_missing():
    names = ["a.0.b.0.w", "a.0.b.1.w", "a.1.b.0.w", "a.1.b.1.w", "a.2.b.0.w", "c.0", "c.2", "d"]
    assert folded(names) == ["a.{0..2}.b.0.w", "a.{0..1}.b.1.w", "c.0", "c.2", "d"]
    assert folded(["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"]) == ["a.{0..1}.b.{0..1}"]
    assert folded([]) == []


def test_seeds_of_steps_differ_and_repeat():
    seeds = [step_seed(seed, step) for seed in range(3) for step in range(100)]
    assert len(set(seeds)) == 300
    assert seeds[7] == step_seed(0, 7) == step_seed(0, 7, forward=0)
    assert not {step_seed(0, step, 1) for step in range(100)} & {*seeds, step_seed(0, 7, 2)}
    assert all(0 <= s < math.inf for s in seeds)

"""LoRA's kin: how long rows are, what a weight of zeros does, which factor learns faster."""

from __future__ import annotations

import copy
from functools import cache
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.base.config import compose
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import delta_state_dict, load_state, trained
from segsweep.peft.dora import DoRA
from segsweep.peft.lora import Fused, LoRA, LowRankInit
from segsweep.peft.pissa import PiSSA
from segsweep.peft.rslora import RsLoRA
from segsweep.run.module import parameter_groups
from segsweep.run.record import optimizer_facts

PLACE = "0.weight"


def edited(kind: type[LoRA], weight: Tensor, **options) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """A layer with an edited weight, and the tensors of the edit."""
    layer = nn.Sequential(nn.Linear(*reversed(weight.shape)).double())
    layer[0].weight.data.copy_(weight)
    method = kind(**{"name": "x", "targets": [PLACE], "train": [], "rank": 2, **options})
    apply(layer, method, {})
    return layer, {n.removeprefix(f"{PLACE}."): t for n, t in delta_state_dict(layer).items()}


def weight(rows: int = 6, columns: int = 5) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("init", LowRankInit)
@pytest.mark.parametrize("blank", [[], [1, 4], range(6)])
def test_rows_have_their_lengths_but_those_of_zeros_their_plain_update(init, blank):
    w = weight()
    w[list(blank)] = 0
    layer, own = edited(DoRA, w, init=init, alpha=4.0)
    assert torch.equal(own["magnitude"], w.norm(dim=1))
    layer[0].weight.square().sum().backward()
    assert all(p.grad.isfinite().all() for _, p in trained(layer))
    layer.zero_grad()
    for tensor in own.values():
        tensor.normal_()
    got = layer[0].weight
    plain = w + 2.0 * own["lora_B"] @ own["lora_A"]
    long = own["magnitude"][:, None] * F.normalize(plain, dim=1)
    zero = w.norm(dim=1, keepdim=True) == 0
    torch.testing.assert_close(got, torch.where(zero, plain, long))
    got.square().sum().backward()
    grads = {name.rpartition(".")[2]: p.grad for name, p in trained(layer)}
    assert grads.keys() == own.keys()
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    assert torch.equal(grads["magnitude"] == 0, zero[:, 0])


@pytest.mark.parametrize("rank", [2, 5, 8])
@pytest.mark.parametrize("kept", [6, 1, 0])
def test_factors_start_as_the_principal_part_and_the_edit_at_nothing(kept, rank):
    w = weight()
    w[kept:] = 0
    layer, own = edited(PiSSA, w, rank=rank, alpha=2.0 * rank)
    assert torch.equal(layer[0].weight, w)
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    principal = u[:, :rank] * s[:rank] @ v[:rank]
    torch.testing.assert_close(2 * own["lora_B0"] @ own["lora_A0"], principal)
    layer[0].weight.square().sum().backward()
    reached = (layer[0].weight.detach() @ own["lora_A"].T).any(dim=0)
    assert all(p.grad.isfinite().all() for _, p in trained(layer))
    grads = {name.rpartition(".")[2]: p.grad for name, p in trained(layer)}
    assert torch.equal(grads["lora_B"].any(dim=0), reached)


def test_a_weight_of_zeros_learns_from_principal_factors_as_from_any():
    layer, own = edited(PiSSA, torch.zeros(6, 5))
    (layer(torch.ones(3, 5).double()).sum()).backward()
    assert dict(trained(layer))[f"{PLACE}.lora_B"].grad.ne(0).all()
    assert not own["lora_B"].any()


def test_the_delta_of_principal_factors_depends_on_no_decomposition_but_its_own():
    w = weight()
    layer, own = edited(PiSSA, w)
    for name in ("lora_A", "lora_B"):
        own[name].add_(0.3)
    other, theirs = edited(PiSSA, w)
    for tensor in theirs.values():  # another program may turn all signs
        tensor.neg_()
    load_state(other, copy.deepcopy(delta_state_dict(layer)))
    assert torch.equal(other[0].weight, layer[0].weight)
    method = PiSSA(name="pissa", rank=2)
    said, factors = method.hf_lora(), method.hf_factors(own)
    assert said["r"] == len(factors["lora_A"]) == 4
    product = said["lora_alpha"] / said["r"] * factors["lora_B"] @ factors["lora_A"]
    torch.testing.assert_close(layer[0].weight - w, product)


def test_the_scale_falls_with_the_root_of_the_rank():
    scales = {r: compose(["peft=rslora", f"peft.rank={r}"]).peft.scale for r in (4, 16)}
    assert scales == {4: 8 / 2, 16: 8 / 4}
    said = RsLoRA(name="rslora", rank=4).hf_lora()
    assert said is not None
    assert said["lora_alpha"] / said["r"] == 4


def rates(*words: str) -> dict[str, float]:
    """The learning rates that a record tells, by the ends of the tensors' names."""
    config = compose(["model.weights=null", "hparams.lr=0.001", *words])
    with torch.device("meta"):
        model = config.model.build(config.data.subject())
    apply(model, config.peft, config.model.roles)
    facts = optimizer_facts(parameter_groups(model, config.hparams, config.model.roles))
    return {name.rpartition(".")[2]: g["lr"] for g in facts for name in g["tensors"]}


def test_the_second_factor_learns_faster_unless_a_run_says_otherwise():
    told = rates("peft=lora_plus")
    assert told["lora_B"] == pytest.approx(0.016)
    assert {told[name] for name in ("lora_A", "weight", "bias")} == {0.001}
    assert rates("peft=lora_plus", "peft.ratio=4")["lora_B"] == pytest.approx(0.004)
    told = rates("peft=lora_plus", "hparams.lr_factors={*.lora_*: 2}")
    assert told["lora_A"] == told["lora_B"] == 0.002


@cache
def backbone(layout: str, name: str) -> nn.Module:
    with torch.device("meta"):
        return import_module(f"segsweep.model.backbones.{layout}").build(name, {})


VIT = "vit", "vit_base_patch16_224"
SAM = "sam", "samvit_huge_patch16"
SWIN = "swin", "swin_base_patch4_window12_384"
QKV, FFN = ["*.qkv.weight"], ["*.mlp.fc?.weight"]
ALL = [*QKV, "*.attn.proj.weight", *FFN]


@pytest.mark.parametrize(
    ("kind", "targets", "rank", "counts"),
    [
        (LoRA, QKV, 4, {VIT: 147_456, SAM: 655_360}),
        (LoRA, QKV, 8, {VIT: 294_912, SAM: 1_310_720, SWIN: 385_024}),
        (LoRA, QKV, 16, {VIT: 589_824, SAM: 2_621_440}),
        (LoRA, FFN, 8, {VIT: 737_280, SAM: 3_276_800}),
        (LoRA, ALL, 8, {VIT: 1_179_648, SAM: 5_242_880}),
        (DoRA, QKV, 8, {VIT: 322_560, SAM: 1_433_600}),
        (PiSSA, QKV, 8, {VIT: 294_912}),
    ],
)
def test_counts_in_full_size(kind, targets, rank, counts):
    for host, count in counts.items():
        method = kind(name="x", train=[], targets=targets, rank=rank)
        assert apply(copy.deepcopy(backbone(*host)), method, {}).added == count


def test_lengths_of_the_rows_that_are_edited():
    """Pairs of factors on query and value rows have lengths of these rows, not of the keys'."""
    model = nn.ModuleDict({"qkv": nn.Linear(4, 12)})
    method = DoRA(name="dora", train=[], targets=["qkv.weight"], rank=2, fused=Fused.qv)
    assert apply(model, method, {}).added == 2 * (2 * 8 + 4)
    assert merge(model) == []

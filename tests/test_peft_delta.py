"""Delta files: small, exact, bound to their base, written whole or not at all."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from segsweep.base.errors import UserError
from segsweep.peft.apply import apply
from segsweep.peft.delta import (
    base_hash,
    delta_bytes,
    delta_state_dict,
    load_delta,
    load_state,
    read_delta,
)
from segsweep.peft.lora import LoRA
from segsweep.peft.select import Select

META = {"method": {"name": "lora", "rank": 2}, "base": "net"}


class Net(nn.Module):
    """A fused weight, a norm with running statistics, a head under two names."""

    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.head = self.box = nn.Linear(16, 3)

    def forward(self, x):
        x = self.mix(x, x, x)[0]
        return self.head(self.norm(x.flatten(0, 1)))


def lora(rank=2, targets=("mix.in_proj_weight",), train=("head.*",)):
    return LoRA(name="lora", rank=rank, targets=list(targets), train=list(train))


@pytest.fixture
def base():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def trained(base):
    """A few optimizer steps in training mode: factors, head and running statistics move."""
    model = copy.deepcopy(base)
    apply(model, lora(), {})
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(torch.randn(4, 5, 16)).square().mean().backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(delta_bytes(trained, META))
    return path


def fresh(base, method=None):
    model = copy.deepcopy(base).eval()
    apply(model, method or lora(), {})
    return model


def test_a_delta_restores_the_trained_model(base, trained, saved):
    model, x = fresh(base), torch.randn(2, 5, 16)
    assert not torch.equal(model(x), trained(x))
    facts = load_delta(saved, model)
    assert torch.equal(model(x), trained(x))
    assert facts["base_hash"] == base_hash(trained) == base_hash(model)
    assert (facts["method"], facts["base"]) == (META["method"], META["base"])
    assert facts["trained_parameters"] == 2 * 2 * (16 + 16) + 3 * 16 + 3


def test_a_delta_holds_trained_tensors_and_changed_buffers_under_readable_names(saved):
    factors = [f"mix.in_proj_weight:{rows}.lora_{x}" for rows in "qv" for x in "AB"]
    buffers = ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert set(load_file(saved)) == {*factors, "head.weight", "head.bias", *buffers}


def test_unchanged_buffers_are_no_part_of_a_delta(base):
    model = fresh(base)
    model(torch.randn(2, 5, 16))
    assert not any(name.startswith("norm") for name in delta_state_dict(model))


def test_the_base_hash_does_not_move_in_training(base, trained):
    assert base_hash(fresh(base)) == base_hash(trained)


def test_training_leaves_the_frozen_bits_alone(base, trained):
    before = base.state_dict()
    assert torch.equal(
        trained.mix.parametrizations.in_proj_weight.original, before["mix.in_proj_weight"]
    )
    for name in ("mix.in_proj_bias", "mix.out_proj.weight", "norm.weight"):
        assert torch.equal(trained.state_dict()[name], before[name])


@pytest.mark.parametrize("name", ["mix.in_proj_weight", "norm.bias", "norm.running_var"])
def test_another_base_is_refused_by_its_hash(base, saved, name):
    base.state_dict()[name].view(-1)[0].add_(1e-6)
    model = fresh(base)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as error:
        load_delta(saved, model)
    assert read_delta(saved)[1]["base_hash"] in str(error.value)
    assert base_hash(model) in str(error.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lora(rank=4), "has other sizes for mix.in_proj_weight:q.lora_A"),
        (lora(targets=["mix.in_proj_weight:q"]), "has unexpected mix.in_proj_weight:v.lora_A"),
        (lora(train=["head.*", "mix.out_proj.bias"]), "lacks mix.out_proj.bias"),
        (
            Select(name="head", train=["head.*"]),
            "has unexpected .* and 1 more: it belongs to another",
        ),
    ],
)
def test_a_delta_of_another_method_is_refused(base, saved, method, message):
    with pytest.raises(UserError, match=message):
        load_delta(saved, fresh(base, method))


def test_what_is_no_delta_is_refused(base, tmp_path):
    foreign, torn, absent = (tmp_path / name for name in ("foreign", "torn", "absent"))
    save_file({"head.weight": torch.zeros(3, 16)}, foreign)
    torn.write_bytes(b"\x80" * 64)
    for path in (foreign, torn, absent):
        with pytest.raises(UserError, match="is no delta that segsweep has written"):
            load_delta(path, fresh(base))


def test_what_was_collected_can_be_loaded_again(base, trained):
    model, x = fresh(base), torch.randn(2, 5, 16)
    state = copy.deepcopy(delta_state_dict(trained))
    load_state(model, state)
    assert torch.equal(model(x), trained(x))
    del state["head.bias"]
    with pytest.raises(UserError, match=r"checkpoint lacks head\.bias"):
        load_state(model, state)


def test_frozen_is_known_only_after_apply(base):
    with pytest.raises(RuntimeError, match="apply a method first"):
        base_hash(base)

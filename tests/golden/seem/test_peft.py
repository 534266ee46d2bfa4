"""Adapters and LoRA against recorded outputs of the released programs, through `apply`."""

from __future__ import annotations

import re

import pytest
import torch
from injected import ADAPTER_NAMES, LORA_NAMES, ours, put, wrapped

from segsweep.model.seem import SEEM
from segsweep.peft.adapter import Adapter, Residual
from segsweep.peft.apply import merge
from segsweep.peft.layers import Bottlenecks
from segsweep.peft.lora import Fused, LoRA

from .passes import Pass

pytestmark = pytest.mark.golden
PAIR_NAMES = [(r"\.([qkv])_([AB])$", r".in_proj_weight:\1.lora_\2")]
MERGED = "merged_in_proj_weight/"


def tuned(golden, method):
    """The head that compares with the recorded texts, after a method was applied."""
    head = golden.head(golden.arrays("end_to_end")["text_embeddings"])
    return wrapped("sem_seg_head", head, method, SEEM().roles)


def check_all(golden, model, expected):
    """Compare all that was recorded of a pass."""
    assert expected
    done = Pass(model.sem_seg_head, golden.features())
    for name, value in expected.items():
        golden.check(done[name], value)


@pytest.mark.parametrize("residual", Residual, ids=lambda residual: residual.name)
@pytest.mark.parametrize("repeats", [1, 3])
def test_adapters(golden, repeats, residual):
    file = f"adapters_I{repeats}"
    model = tuned(golden, Adapter(name=file, train=[], repeats=repeats, residual=residual))
    put(model, golden.state(file), ADAPTER_NAMES)
    check_all(golden, model, golden.state(file, residual.name.replace("+", "_") + "/"))


@torch.no_grad()
def test_adapters_by_themselves(golden):
    arrays = golden.arrays("adapter_unit")
    cases = {name.split("/")[0] for name in arrays if "/" in name}
    assert cases
    for case in cases:
        state = golden.state("adapter_unit", f"{case}/sd/")
        hidden, width = state["adapters.0.adapter_down.0.weight"].shape
        chain = Bottlenecks(width, hidden, int(case[1:]), "kappa", "zero_up")
        names = [(r"adapters\.(\d+)\.adapter_(down|up)(\.0)?", r"\1.\2")]
        chain.load_state_dict({ours(name, names): tensor for name, tensor in state.items()})
        golden.check(chain(arrays["x"], arrays["residual"]), arrays[f"{case}/out"])


@pytest.mark.parametrize(
    ("file", "fused", "prefix", "names"),
    [
        ("lora_official_r4", "joint", "sd/", LORA_NAMES),
        ("lora_paper_qv_r4", "qv", "lora/", PAIR_NAMES),
    ],
)
def test_lora(golden, file, fused, prefix, names):
    rank = int(golden.arrays(file)["rank"])
    found = (re.match(r"(r\d+_alpha(\d+))/", name) for name in golden.arrays(file))
    cases = {match[1]: float(match[2]) for match in found if match}
    assert cases
    for case, alpha in cases.items():
        method = LoRA(
            name=file, train=[], rank=rank, alpha=alpha, fused=Fused[fused], targets=["attention"]
        )
        model = tuned(golden, method)
        put(model, golden.state(file, prefix), names)
        expected = golden.state(file, f"{case}/")
        weights = {k: expected.pop(k) for k in list(expected) if k.startswith(MERGED)}
        check_all(golden, model, expected)
        assert merge(model) == []
        check_all(golden, model, expected)
        assert weights
        for name, weight in weights.items():
            path = name.removeprefix(MERGED) + ".in_proj_weight"
            golden.check(model.state_dict()[path], weight)

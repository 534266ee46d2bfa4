"""ViT, DINOv2, SAM and Swin give timm's numbers, block by block, and so do methods on them."""

from __future__ import annotations

import re

import pytest
import torch
from hosts import Hosts, compare, outputs, own, passed
from torch import nn

from segsweep.model.backbones import sam, vit
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import trained
from segsweep.peft.lora import Fused, LoRA
from segsweep.peft.select import Select

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


CASES = {  # by file; statistics of first draws (init/*) are no outputs
    "bitfit": {"vit", "dino", "sam", "swin"},
    "lora_fused": {f"module/{case}" for case in ("joint", "grouped", "grouped_qkv", "pairs")}
    | {f"net_vit/{case}" for case in ("joint", "grouped", "pairs", "ffn")},
}


@pytest.mark.parametrize("file", CASES)
def test_every_case_is_compared(hosts, file):
    outputs = re.compile(r"/(out|mid|grad|merged)/.*")
    assert {outputs.sub("", key) for key in hosts.keys(file, "")} == CASES[file]


@pytest.mark.parametrize("name", ["host_vit", "host_dino", "host_sam", "host_swin", "host_swin4"])
@torch.no_grad()
def test_hosts(hosts, name):
    compare(hosts, name, "", outputs(hosts.build(name), hosts.arrays(name)["in/image"]))


# rules of selection as patterns of names; those of a neck are SAM's alone
RULES = {
    "endswith_.bias": ["*.bias"],
    "substring_bias": ["*.*bias*"],
    "linear_conv_only": ["*.proj.bias", "*.qkv.bias", "*.fc?.bias"],
    "norm_only": ["*norm*.bias", "neck.*.bias"],
    "all_norm_affine": ["*norm*.*", "neck.1.*", "neck.3.*"],
}


def select(host, patterns):
    known = dict(host.named_parameters())
    chosen = [p for p in patterns if not p.startswith("neck") or "neck.1.weight" in known]
    apply(host, Select(name="bitfit", train=chosen), {})
    extra = tuple(f"norm{i}." for i in range(len(host.channels) - 1))  # not in timm's Swin
    names = [n for n, p in known.items() if p.requires_grad and not n.startswith(extra)]
    return names, sum(known[name].numel() for name in names)


@pytest.mark.parametrize("kind", ["vit", "dino", "sam", "swin"])
def test_bitfit(hosts, kind):
    host, name = hosts.build(f"host_{kind}"), f"host_{kind}"
    for rule, expected in hosts.manifest["bitfit"]["selection"][kind].items():
        names, numel = select(host, RULES[rule])
        assert (len(names), numel) == (expected["count"], expected["numel"])
        if expected["names"] is not None:
            assert sorted(names) == sorted(own(host, name) for name in expected["names"])
    select(host, RULES["endswith_.bias"])
    values, grads = passed(hosts, "bitfit", f"{kind}/", host, hosts.arrays(name)["in/image"])
    recorded = [key.partition("grad/")[2] for key in hosts.keys("bitfit", f"{kind}/grad/")]
    values |= {f"grad/{key}": grads[own(host, key)] for key in recorded}
    compare(hosts, "bitfit", f"{kind}/", values)


@pytest.mark.parametrize("word", ["vit_base_patch16_224", "samvit_huge_patch16"])
def test_counts_of_bitfit(hosts, word):
    with torch.device("meta"):
        host = (sam if word.startswith("sam") else vit).build(word, {})
    counts = hosts.manifest["bitfit"]["real_models"][word]
    assert {rule: select(host, RULES[rule])[1] for rule in counts} == counts


ROWS = {"joint": [""], "grouped": ["q", "v"], "grouped_qkv": ["q", "k", "v"], "pairs": ["q", "v"]}


def lora(hosts, case, layer):
    """The method of a case; its scale is what was recorded, whatever the rank."""
    config = hosts.manifest["lora_fused"]["config"]
    rank = config["rf" if case == "ffn" else "r"]
    rows = ROWS.get(case, [""])
    targets = [f"{layer}.weight:{r}" if r else f"{layer}.weight" for r in rows]
    alpha = rank * config["scaling"][case]
    return LoRA(
        name="lora", train=[], targets=targets, rank=rank, alpha=alpha, fused=Fused["joint"]
    )


def factors(case, name):
    """Our names of what stands one below the other in a recorded factor."""
    if pair := re.fullmatch(r"(.*)linear_(.)_(.)\.weight", name):
        return [f"{pair[1]}weight:{pair[3]}.lora_{pair[2].upper()}"]
    layer, _, factor = name.rpartition("lora_")
    rows = ROWS.get(case, [""])
    return [f"{layer}weight{':' * bool(r)}{r}.lora_{factor}" for r in rows]


def edited(hosts, kind, case, model, layer, prefix=""):
    """Apply LoRA with the recorded factors; our names by recorded ones."""
    apply(model, lora(hosts, case, layer), {})
    state = hosts.state("lora_fused", f"{kind}/{case}/param/")
    recorded = {k: v for k, v in state.items() if "lora_" in k or "linear_" in k}
    ours, added = dict(trained(model)), set()
    for name, factor in recorded.items():
        names = factors(case, prefix + name)
        for our, part in zip(names, factor.chunk(len(names)), strict=True):
            ours[our].data.copy_(part)
        added |= set(names)
    assert added == ours.keys()
    return {name: factors(case, prefix + name) for name in recorded}


def joined(names, grads):
    return {f"grad/{name}": torch.cat([grads[our] for our in ours]) for name, ours in names.items()}


@pytest.mark.parametrize("case", ["joint", "grouped", "pairs", "ffn"])
def test_lora_in_a_vit(hosts, case):
    host, layer = hosts.build("host_vit"), "blocks.*.mlp.fc?" if case == "ffn" else "*.qkv"
    names = edited(hosts, "net_vit", case, host, layer)
    image = hosts.arrays("host_vit")["in/image"]
    values, grads = passed(hosts, "lora_fused", f"net_vit/{case}/", host, image)
    assert merge(host) == []
    values |= {f"merged/{name}": weight for name, weight in host.state_dict().items()}
    compare(hosts, "lora_fused", f"net_vit/{case}/", values | joined(names, grads))
    with torch.no_grad():
        again = outputs(host, image)
    torch.testing.assert_close(again["out/features"], values["out/features"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ROWS)
def test_lora_on_one_weight(hosts, case):
    tensors = hosts.state("lora_fused", f"module/{case}/")
    weight, x = tensors["param/weight"], tensors["in/x"].clone().requires_grad_()
    model = nn.ModuleDict({"qkv": nn.Linear(*reversed(weight.shape))})
    model.load_state_dict({"qkv.weight": weight, "qkv.bias": tensors["param/bias"]})
    names = edited(hosts, "module", case, model, "qkv", "qkv.")
    y = model["qkv"](x)
    (y * tensors["upstream/y"]).sum().backward()
    values = {"out/y": y, "grad/x": x.grad}
    values |= joined(names, {name: p.grad for name, p in trained(model)})
    assert merge(model) == []
    merged = model.state_dict()["qkv.weight"]
    values |= {
        "merged/weight": merged,
        "out/delta_W": merged - weight,
        "out/y_merged": model["qkv"](x),
    }
    compare(hosts, "lora_fused", f"module/{case}/", values)

"""Low-rank edits and their kin as peft computes them; attention and adapters of Mask DINO's fork.

All in double precision: what is recorded was computed so, and stored in single.
"""

from __future__ import annotations

import re

import pytest
import torch
from hosts import Hosts, outputs, passed
from injected import ADAPTER_NAMES, LORA_NAMES, ours, put, wrapped
from recorded import uncompared
from torch import Tensor, nn

from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.layers.seam import Seam
from segsweep.model.necks.pixel_decoder import DeformableLayer
from segsweep.peft.adapter import Adapter, BottleneckInit, Residual
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import delta_state_dict, trained
from segsweep.peft.dora import DoRA
from segsweep.peft.lora import Fused, LoRA
from segsweep.peft.pissa import PiSSA
from segsweep.peft.rslora import RsLoRA

pytestmark = pytest.mark.golden
DETR, EDITS = "seed000_detr", "dora_rslora_pissa"
KNOWN = {
    EDITS: [
        r"(lora|rslora|dora)/(param/.+|upstream/features|out/.+|mid/.+|grad/.+|merged/.+)",
        r"pissa/out/init/.+",
        r"init/dora/.+",
    ],
    DETR: [
        r"(deform_ref[24]|mha_qv|encoder_layer_I[12]|adapter_stack_I3)/(param|in|upstream)/.+",
        r"(deform_ref[24]|mha_qv|encoder_layer_I[12]|adapter_stack_I3)/(out|grad|merged)/.+",
        r"deform_ref[24]/library_grad_wrong/(query|memory)",  # which ours are not
        r"init/.+",
    ],
    # not offered: LoRA has no dropout; cases of other methods are theirs
    "dropout_pinned": [r"lora_(joint|grouped)/.+", r"(?!lora_).+"],
}
HF_NAMES = [  # of a factor in the package peft, and ours
    (r"qkv\.(lora_.)\.weight", r"qkv.weight.\1"),
    (r"qkv\.lora_magnitude_vector\.weight", "qkv.weight.magnitude"),
]


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def test_nothing_recorded_is_left_out(hosts):
    left = uncompared(hosts, KNOWN)
    assert not left.keys() & KNOWN.keys()


def state(hosts: Hosts, file: str, case: str) -> dict[str, Tensor]:
    """The tensors of a case, in double precision where they are numbers."""
    tensors = hosts.state(file, f"{case}/").items()
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors}


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def compare(hosts: Hosts, file: str, case: str, values: dict[str, Tensor], but: str = "") -> None:
    """Compare all outputs, gradients and merged weights of a case, to the last digits stored."""
    recorded = hosts.state(file, f"{case}/").items()
    keys = {k: t.double() for k, t in recorded if re.match(r"(out|mid|grad|merged)/", k)}
    assert keys
    for key, expected in keys.items():
        if not (but and re.match(but, key)):
            actual = values[key].detach().reshape(expected.shape)
            atol = 2e-7 * expected.abs().max().item()
            torch.testing.assert_close(actual, expected, atol=atol, rtol=0, msg=f"{case}/{key}")


def low_rank(kind: type[LoRA], targets: list[str], config: dict) -> LoRA:
    """A method of the recorded size on whole weights."""
    sizes = {"rank": config["r"], "alpha": config["alpha"], "fused": Fused.joint}
    return kind(name=kind.__name__.lower(), train=[], targets=targets, **sizes)


@pytest.mark.parametrize("kind", [LoRA, RsLoRA, DoRA])
def test_edits_of_a_vit(hosts, kind):
    method = low_rank(kind, ["*.qkv.weight"], hosts.manifest[EDITS]["config"])
    host, image = hosts.build("host_vit").double(), hosts.arrays("host_vit")["in/image"].double()
    with torch.no_grad():
        base = outputs(host, image)["out/features"]
        apply(host, method, {})
        torch.testing.assert_close(outputs(host, image)["out/features"], base, atol=1e-14, rtol=0)
    factors = below(state(hosts, EDITS, method.name), "param/")
    put(host, factors, HF_NAMES)
    values, grads = passed(hosts, EDITS, f"{method.name}/", host, image)
    values |= {f"grad/{name}": grads[ours(name, HF_NAMES)] for name in factors}
    assert merge(host) == []
    values |= {f"merged/{name}": weight for name, weight in host.state_dict().items()}
    values["out/features_merged"] = outputs(host, image)["out/features"]
    compare(hosts, EDITS, method.name, values)


def test_principal_factors(hosts):
    """peft decomposes in single precision; products and lengths are unique, the factors are not."""
    config = hosts.manifest[EDITS]["config"]
    host, rank = hosts.build("host_vit").double(), config["r"]
    full = dict(host.named_parameters())["blocks.0.attn.qkv.weight"].shape[1]
    whole = hosts.build("host_vit").double()  # every singular value
    apply(host, low_rank(PiSSA, ["*.qkv.weight"], config), {})
    apply(whole, low_rank(PiSSA, ["*.qkv.weight"], config | {"r": full, "alpha": 2 * full}), {})
    delta, everything, compared = delta_state_dict(host), delta_state_dict(whole), set()
    scale, tensors = config["alpha"] / rank, hosts.state(EDITS, "pissa/out/init/")
    for block in range(len(host.get_submodule("blocks"))):
        name = f"blocks.{block}.attn.qkv.weight"
        down, up = delta[f"{name}.lora_A0"], delta[f"{name}.lora_B0"]
        lengths = [everything[f"{name}.lora_{x}0"] for x in "AB"]
        own = {
            "sBA": scale * up @ down,
            "residual_weight": host.get_submodule(f"blocks.{block}.attn.qkv").weight
            - scale * delta[f"{name}.lora_B"] @ delta[f"{name}.lora_A"],
            "row_norms_A": down.norm(dim=1),
            "col_norms_B": up.norm(dim=0),
            "singular_values_W0": 2 * lengths[0].norm(dim=1) * lengths[1].norm(dim=0),
        }
        for key, value in own.items():
            hosts.check(EDITS, f"pissa/out/init/blocks.{block}.{key}", value.float())
        compared |= {f"blocks.{block}.{key}" for key in own}
    assert compared == tensors.keys()


def test_first_draws(hosts):
    """Over three seeds; lengths follow from the weight, so they are compared above."""
    torch.manual_seed(0)
    told = {k: t for k, t in hosts.arrays(EDITS).items() if k.startswith("init/")}
    for key, rows in told.items():
        factor, shape = key.split(".")[-3], hosts.manifest[EDITS]["init"][key[5:]]["shape"]
        if factor == "lora_magnitude_vector":
            continue
        layer = nn.Sequential(nn.Linear(shape[-1], shape[0] if factor == "lora_B" else 96))
        apply(layer, LoRA(name="lora", train=[], targets=["0.weight"], rank=min(shape)), {})
        check_draw(delta_state_dict(layer)[f"0.weight.{factor}"], rows)
    layer = nn.Sequential(Seam(64), nn.Linear(1, 1))
    apply(layer, Adapter(name="adapter", train=[], seams=["*"], init=BottleneckInit.bert), {})
    for key, rows in hosts.arrays(DETR).items():
        if key.startswith("init/"):
            name = ours(key.rpartition("/")[2], ADAPTER_NAMES)
            check_draw(delta_state_dict(layer)[f"0.{name}"], rows)


def check_draw(ours: Tensor, rows: Tensor) -> None:
    """Compare mean, deviation and extremes of a draw with three recorded ones."""
    mean, std, low, high, zero = rows.mean(dim=0).tolist()
    assert ours.std(correction=0).item() == pytest.approx(std, rel=0.15)
    assert ours.mean().item() == pytest.approx(mean, abs=max(0.3 * std, 1e-9))
    assert (ours == 0).float().mean().item() == zero
    assert ours.min().item() == pytest.approx(low, rel=0.5)
    assert ours.max().item() == pytest.approx(high, rel=0.5)


def learned(model: nn.Module, names: list, factors: dict[str, Tensor], prefix: str) -> dict:
    """Gradients of what a method added, by recorded names."""
    grads = {name: p.grad for name, p in trained(model)}
    return {f"grad/{name}": grads[prefix + ours(name, names)] for name in factors}


@pytest.mark.parametrize("case", ["deform_ref2", "deform_ref4"])
def test_deformable_attention(hosts, case):
    config, tensors = hosts.manifest[DETR]["config"], state(hosts, DETR, case)
    base, given = below(tensors, "param/"), below(tensors, "in/")
    factors = {k: t for k, t in base.items() if "lora" in k}
    sizes = config["d"], config["heads"], len(config["levels"]), config["points"]
    attention = DeformableAttention(*sizes).double()
    attention.load_state_dict({k: t for k, t in base.items() if "lora" not in k})
    targets = ["msda.sampling_offsets.weight", "msda.value_proj.weight"]
    model = wrapped("msda", attention, low_rank(LoRA, targets, config), {})
    put(model, factors, LORA_NAMES, "msda.")
    query, memory = (given[key].clone().requires_grad_() for key in ("query", "memory"))
    shapes, padding = given["spatial_shapes"].tolist(), given["padding_mask"]
    y = model.msda(query, given["reference_points"], memory, shapes, padding)
    (y * tensors["upstream/y"]).sum().backward()
    values = {"out/y": y, "grad/query": query.grad, "grad/memory": memory.grad}
    values |= learned(model, LORA_NAMES, factors, "msda.")
    for name, other in (("query", query), ("memory", memory)):  # of the base weight alone
        wrong = tensors[f"library_grad_wrong/{name}"]
        assert (other.grad - wrong).norm() > 0.1 * wrong.norm()
    assert merge(model) == []
    weights = model.state_dict()
    values |= {f"merged/{k}": weights[f"msda.{k}"] for k in below(tensors, "merged/")}
    compare(hosts, DETR, case, values)


def test_regular_attention(hosts):
    config, tensors = hosts.manifest[DETR]["config"], state(hosts, DETR, "mha_qv")
    base = below(tensors, "param/")
    factors = {k: t for k, t in base.items() if "lora" in k}
    attention = nn.MultiheadAttention(config["d"], config["heads"], batch_first=True).double()
    attention.load_state_dict({k: t for k, t in base.items() if "lora" not in k}, strict=False)
    assert attention.in_proj_bias is not None
    model = wrapped("mha", attention, low_rank(LoRA, ["mha.in_proj_weight"], config), {})
    put(model, factors, LORA_NAMES, "mha.")
    x = tensors["in/x"]
    y = model.mha(x, x, x)[0]
    (y * tensors["upstream/y"]).sum().backward()
    values = {"out/y": y} | learned(model, LORA_NAMES, factors, "mha.")
    assert merge(model) == []
    values["merged/in_proj_weight"] = model.mha.in_proj_weight
    compare(hosts, DETR, "mha_qv", values)


@pytest.mark.parametrize("repeats", [1, 2])
def test_adapters_in_an_encoder_layer(hosts, repeats):
    config, case = hosts.manifest[DETR]["config"], f"encoder_layer_I{repeats}"
    tensors = state(hosts, DETR, case)
    base, given = below(tensors, "param/"), below(tensors, "in/")
    factors = {k: t for k, t in base.items() if "adapter" in k}
    sizes = config["d"], config["heads"]
    layer = DeformableLayer(*sizes, config["ffn"], len(config["levels"]))
    layer.self_attn = DeformableAttention(*sizes, len(config["levels"]), config["points"])
    layer.double().load_state_dict({k: t for k, t in base.items() if "adapter" not in k})
    method = Adapter("adapter", train=[], repeats=repeats, reduction=config["reduction"])
    method.seams = ["*.after_self_attn"]
    model = wrapped("layer", layer, method, {})
    put(model, factors, ADAPTER_NAMES, "layer.")
    x, shapes = given["src"], given["spatial_shapes"].tolist()
    y = model.layer(x, given["pos"], given["reference_points"], shapes)
    (y * tensors["upstream/y"]).sum().backward()
    compare(hosts, DETR, case, {"out/y": y} | learned(model, ADAPTER_NAMES, factors, "layer."))


@pytest.mark.parametrize("residual", Residual, ids=lambda residual: residual.name)
@torch.no_grad()
def test_a_stack_of_adapters(hosts, residual):
    tensors = state(hosts, DETR, "adapter_stack_I3")
    factors, t, a = below(tensors, "param/"), tensors["in/t"], tensors["in/a"]
    method = Adapter("adapter", train=[], repeats=3, residual=residual, seams=["*"])
    method.reduction = hosts.manifest[DETR]["config"]["reduction"]
    model = nn.ModuleDict({"seam": Seam(t.shape[-1]), "like": nn.Linear(1, 1)}).double()
    apply(model, method, {})
    put(model, factors, ADAPTER_NAMES, "seam.")
    case, other = residual.name.replace("+", "_"), r"out/(x_I|block_preLN)_"
    x = model["seam"](a, t)
    values = {f"out/x_I_{case}": x, f"out/block_preLN_{case}": t + x}
    compare(hosts, DETR, "adapter_stack_I3", values, but=rf"{other}(?!{re.escape(case)}$)")

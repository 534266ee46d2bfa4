"""SSF and ARC in hosts as their programs compute them, folded too, and as drawn at first."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hosts import Hosts, compare, outputs, own, passed
from injected import ours
from torch import nn

from segsweep.peft.apply import merge
from segsweep.peft.arc import ARC, Swin
from segsweep.peft.delta import trained
from segsweep.peft.layers_arc import Recomposition
from segsweep.peft.ssf import SSF
from tests.small_hosts import applied

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


PORT = "ssf_arc_lora_sam_dino"
CASES = {
    "ssf_vit": {""},
    "ssf_swin": {""},
    "arc_vit": {"module", "net"},
    "arc_swin": {""},
    PORT: {"ssf_sam", "ssf_dino", "arc_dino", "arc_sam", "arc_swin", "lora_sam"},
}


@pytest.mark.parametrize("file", CASES)
def test_every_case_is_compared(hosts, file):
    """But `lora_sam`, which is compared where LoRA is."""
    outputs = re.compile(r"/?(out|mid|grad|merged)/.*")
    assert {outputs.sub("", key) for key in hosts.keys(file, "")} == CASES[file]


SSF_NAMES = [
    *((rf"attn\.ssf_(\w+)_{i}", rf"attn.{part}.\1") for i, part in ((1, "qkv"), (2, "proj"))),
    *((rf"embed\.ssf_(\w+)_{i}", rf"embed.{part}.\1") for i, part in ((1, "proj"), (2, "norm"))),
    (r"mlp\.ssf_(\w+)_(.)", r"mlp.fc\2.\1"),
    (r"(blocks\.\d+)\.ssf_(\w+)_(.)", r"\1.norm\3.\2"),
    (r"^ssf_(\w+)_1", r"norm.\1"),
    (r"\.scale$", ".weight.ssf_scale"),
    (r"\.shift$", ".bias.ssf_shift"),
]
ARC_NAMES = [
    (r"attn?_(down_projection|u)$", "blocks.0.after_norm1.filling.down"),
    (r"mlp_(down_projection|u)$", "blocks.0.after_norm2.filling.down"),
    (r"att_adapter|adapter_attn|attn_(?=lambda)", "after_norm1.filling"),
    (r"mlp_adapter|adapter_mlp|mlp_(?=lambda)", "after_norm2.filling"),
    (r"\.?(adapter_rescale|lambda)$", ".scale"),
    (r"\.?(adapter_bias|lambda_bias)$", ".shift"),
]
RELEASED = [*ARC_NAMES, ("after_norm2", "after_attn_sum")]


def ssf(*more):
    return SSF(name="ssf", train=[], targets=["linears", "norms", "patches", *more])


def arc(swin=Swin.released):
    return ARC(name="arc", train=[], rank=6, swin=swin)


@pytest.mark.parametrize(
    ("file", "case", "kind", "method", "names"),
    [
        ("ssf_vit", "", "vit", ssf("backbone.norm.weight"), SSF_NAMES),
        ("ssf_swin", "", "swin", ssf("backbone.norm1.weight"), SSF_NAMES),
        (PORT, "ssf_dino/", "dino", ssf("backbone.norm.weight"), SSF_NAMES),
        (PORT, "ssf_sam/", "sam", ssf(), SSF_NAMES),
        ("arc_vit", "net/", "vit", arc(), ARC_NAMES),
        ("arc_swin", "", "swin", arc(), RELEASED),
        (PORT, "arc_dino/", "dino", arc(), ARC_NAMES),
        (PORT, "arc_sam/", "sam", arc(), ARC_NAMES),
        (PORT, "arc_swin/", "swin", arc(Swin.port), ARC_NAMES),
    ],
)
def test_in_a_host(hosts, file, case, kind, method, names):
    host, image = hosts.build(f"host_{kind}"), hosts.arrays(f"host_{kind}")["in/image"]
    applied(host, method)
    host.eval()
    state, added = hosts.state(file, f"{case}param/"), dict(trained(host))
    known = {name: own(host, ours(name, names)) for name in state}
    for name, tensor in state.items():
        added.pop(known[name]).data.copy_(tensor)
    assert not added
    values, grads = passed(hosts, file, case, host, image)
    values |= {f"grad/{name}": grads[known[name]] for name in state}
    left = merge(host)
    values |= {f"merged/{name}": tensor for name, tensor in host.state_dict().items()}
    compare(hosts, file, case, values)
    assert not left or (isinstance(method, ARC) and kind in ("sam", "swin"))
    with torch.no_grad():
        again = outputs(host, image)
    for key in again.keys() & values.keys():
        torch.testing.assert_close(again[key], values[key], atol=1e-4, rtol=1e-5)


class Pinned(nn.Module):
    """A dropout whose mask is known."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


@pytest.mark.parametrize(("file", "case"), [("arc_vit", "module/"), ("dropout_pinned", "arc/")])
def test_an_adapter_alone(hosts, file, case):
    tensors = hosts.state(file, case)
    parts = {"scale": "adapter_rescale", "shift": "adapter_bias", "down": "down_projection"}
    adapter = Recomposition(nn.Parameter(tensors["param/down_projection"]), True, 0.3).eval()
    adapter.load_state_dict({ours: tensors[f"param/{name}"] for ours, name in parts.items()})
    if "in/mask0" in tensors:
        adapter.dropout = Pinned(tensors["in/mask0"])
    x = tensors["in/x"].clone().requires_grad_()
    y = adapter(x, x)
    (y * tensors.get("upstream/y", 1)).sum().backward()
    grads = {f"grad/{name}": getattr(adapter, ours).grad for ours, name in parts.items()}
    compare(hosts, file, case, {"out/y": y, "grad/x": x.grad, **grads})


@pytest.mark.parametrize(
    ("file", "method", "names"),
    [
        ("ssf_vit", ssf("backbone.norm.weight"), SSF_NAMES),
        ("arc_vit", ARC(name="arc", train=[]), ARC_NAMES),
    ],
)
def test_first_draws(hosts, file, method, names):
    """Mean, deviation, least and largest value, share of zeros: within what three seeds show."""
    host = hosts.build("host_vit")
    torch.manual_seed(0)
    applied(host, method)
    drawn = dict(trained(host))
    recorded = {k: t for k, t in hosts.state(file, "init/").items() if "/" in k}
    assert recorded
    for key, seeds in recorded.items():
        name = key.partition("/")[2].removeprefix("transformer.").replace("layer.", "blocks.")
        values = drawn[ours(name, names)].detach().double()
        mean, std = seeds[:, 0].mean(), seeds[:, 1].mean()
        assert (values == 0).double().mean() == seeds[:, 4].mean(), key
        assert abs(values.mean() - mean) <= 6 * std / np.sqrt(values.numel()), key
        assert values.std() == pytest.approx(std.item(), rel=0.6), key

"""Recorded outputs of prompts and of a side network, through fillings of the places for them."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import torch
from hosts import Hosts, compare, outputs, passed
from torch import nn

from segsweep.model.backbones import vit
from segsweep.model.layers.seam import seams
from segsweep.peft.delta import trained

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


CASES = {  # by file; statistics of first draws (init/*) are no outputs
    "bitfit": {"vit", "dino", "sam", "swin"},
    "lora_fused": {f"module/{case}" for case in ("joint", "grouped", "grouped_qkv", "pairs")}
    | {f"net_vit/{case}" for case in ("joint", "grouped", "pairs", "ffn")},
    "vpt_vit": {"shallow", "deep", "deep_project"},
    "vpt_swin": {"shallow", "deep"},
    "lst": {"all_layers", "residual_after", "dropped_layers"},
}


@pytest.mark.parametrize("file", CASES)
def test_every_case_is_compared(hosts, file):
    """But `dropped_layers` of lst, a ladder without some rungs: its own affair, not the place's."""
    outputs = re.compile(r"/(out|mid|grad|merged)/.*")
    assert {outputs.sub("", key) for key in hosts.keys(file, "")} == CASES[file]


class Prompts(nn.Module):
    """Prompts of a block in the place of those that were carried there (Jia et al. 2022)."""

    def __init__(self, prompts):
        super().__init__()
        self.prompts = nn.Parameter(prompts.clone())

    def forward(self, carried, cells, tokens):
        assert carried.shape[1] == tokens.prompts
        prompts = self.prompts if tokens.shared is None else tokens.shared(self.prompts)
        return prompts.expand(tokens.images, -1, -1)


def prompted(host, tensors):
    """Fill the places for prompts, in the order of the blocks; recorded names of the fillings."""
    host.requires_grad_(False)
    places = [place for name, place in seams(host).items() if name.endswith(".prompts")]
    names = sorted(name for name in tensors if name.endswith(("embeddings", *"0123456789")))
    names = [*(n for n in names if n[:4] != "deep"), *(n for n in names if n[:4] == "deep")]
    filled = defaultdict(list)
    for name in names:
        for prompts in tensors[name]:
            place = places.pop(0)
            place.filling = Prompts(prompts)
            filled[name].append(place.filling)
    if "prompt_proj.weight" in tensors:
        host.shared.filling = nn.Linear(*reversed(tensors["prompt_proj.weight"].shape))
        state = {name: tensors[f"prompt_proj.{name}"] for name in ("weight", "bias")}
        host.shared.filling.load_state_dict(state)
    return filled


def gradients(host, filled):
    found = {name: torch.stack([f.prompts.grad for f in some]) for name, some in filled.items()}
    if host.shared.filling is not None:
        proj = host.shared.filling.named_parameters()
        found |= {f"prompt_proj.{name}": parameter.grad for name, parameter in proj}
    return found


@pytest.mark.parametrize("case", ["shallow", "deep", "deep_project"])
def test_prompts_in_a_vit(hosts, case):
    host, image = hosts.build("host_vit"), hosts.arrays("host_vit")["in/image"]
    filled = prompted(host, hosts.state("vpt_vit", f"{case}/param/"))
    entering = {}
    for i, block in enumerate(host.get_submodule("blocks")):
        key = f"mid/block{i}_in"
        block.norm1.register_forward_pre_hook(lambda m, x, key=key: entering.update({key: x[0]}))
    values, _ = passed(hosts, "vpt_vit", f"{case}/", host, image)
    values |= entering | {f"grad/{name}": g for name, g in gradients(host, filled).items()}
    compare(hosts, "vpt_vit", f"{case}/", values)


@pytest.mark.parametrize(("case", "name"), [("shallow", "host_swin"), ("deep", "host_swin4")])
def test_prompts_in_a_swin(hosts, case, name):
    """The original gives windows the prompts of other images; alone, each image has its own."""
    host, image = hosts.build(name), hosts.arrays(name)["in/image"]
    filled = prompted(host, hosts.state("vpt_swin", f"{case}/param/"))
    got, _ = passed(hosts, "vpt_swin", f"{case}/", host, image[:1], "features_batch1")
    values = {"out/features_batch1": got["out/features"]}
    values |= {f"grad/batch1/{key}": grad for key, grad in gradients(host, filled).items()}
    with torch.no_grad():
        values["out/features_batchB_each_alone"] = outputs(host, image)["out/features"]
        state, ended = {"images": image[:1]}, 0
        for step in host.steps()[:-1]:
            state = step.run(state)
            if f"stage{ended}" in state:  # whose patches have just been merged
                values[f"mid/stage{ended}_batch1"] = state["x"]
                ended += 1
        values[f"mid/stage{ended}_batch1"] = state["x"]
    compare(hosts, "vpt_swin", f"{case}/", values, but="official")


class Ladder(nn.Module):
    """Side blocks of a smaller width, fed with what the blocks give (Sung et al. 2022)."""

    def __init__(self, config, tensors, depth, after):
        super().__init__()
        small, width = tensors["first.weight"].shape
        kwargs = {"img_size": 8, "patch_size": 8, "embed_dim": small, "depth": depth}
        kwargs["num_heads"] = config["side_heads"]
        self.side_block = vit.build("VisionTransformer", kwargs).blocks
        self.first = nn.Linear(width, small, bias=False)
        self.downs = nn.ModuleList(nn.Linear(width, small, bias=False) for _ in range(depth))
        self.final = nn.Linear(small, width, bias=False)
        self.side_gate_params_v = nn.ParameterList(torch.zeros(1) for _ in range(depth))
        self.after, self.temperature = after, config["gate_T"]

    def forward(self, x, same, tokens):
        first, *given = tokens.outputs
        self.s = [self.first(first)]
        parts = zip(self.side_block, self.downs, self.side_gate_params_v, given, strict=True)
        for block, down, gate, h in parts:
            g, s = (gate / self.temperature).sigmoid(), self.s[-1]
            s = block(s, tokens) if self.after else s
            s = g * s + (1 - g) * down(h)
            self.s.append(s if self.after else block(s, tokens))
        return self.final(self.s[-1])


@pytest.mark.parametrize("case", ["all_layers", "residual_after"])
def test_a_side_network(hosts, case):
    host, tensors = hosts.build("host_vit"), hosts.state("lst", f"{case}/param/")
    host.requires_grad_(False)
    depth = len(host.get_submodule("blocks"))
    config = hosts.manifest["lst"]["config"]
    ladder = Ladder(config, tensors, depth, after=case == "residual_after")
    ladder.load_state_dict(tensors)
    host.side.filling = ladder
    values = {}
    host.side.register_forward_hook(lambda m, x, y: values.update({"out/features": y}))
    host(hosts.arrays("host_vit")["in/image"])
    (values["out/features"] * hosts.arrays("lst")[f"{case}/upstream/features"]).sum().backward()
    values |= {f"mid/s{i}": s for i, s in enumerate(ladder.s)}
    values |= {f"grad/{n.removeprefix('side.filling.')}": p.grad for n, p in trained(host)}
    compare(hosts, "lst", f"{case}/", values)

"""Prompts, the ladder beside a backbone and SAM-Adapter give the numbers of their originals."""

from __future__ import annotations

import re

import pytest
import torch
from hosts import Hosts, compare, outputs, passed
from torch import Tensor, nn

from segsweep.model.backbones.host import Host
from segsweep.peft.delta import trained
from segsweep.peft.layers_tokens import highpass
from segsweep.peft.lst import LST
from segsweep.peft.sam_adapter import Embedding, SAMAdapter
from segsweep.peft.vpt import VPT
from tests.small_hosts import applied

pytestmark = pytest.mark.golden
Parts = dict[str, list[nn.Parameter]]  # recorded names, and what of ours stands in such a tensor

CASES = {
    "vpt_vit": {"shallow", "deep", "deep_project"},
    "vpt_swin": {"shallow", "deep"},
    "vpt_adaptformer": {""},
    "lst": {"all_layers", "residual_after", "dropped_layers"},
    "sam_adapter": {"original", "unscrambled", "highpass"},
}


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


@pytest.mark.parametrize("file", CASES)
def test_every_case_is_compared(hosts: Hosts, file: str) -> None:
    """All outputs of it, see `compare`, and all first draws (`test_first_draws`), but these.

    `features_batchB_official` of a Swin, where windows have the prompts of other images; and the
    draws of AdaptFormer's program, by another rule than those of VPT.
    """
    outputs = re.compile(r"/?(out|mid|grad)/.*")
    assert {outputs.sub("", key) for key in hosts.keys(file, "")} == CASES[file]
    assert file in (*DRAWN, "vpt_adaptformer") or not hosts.state(file, "init/")


def load(parts: Parts, tensors: dict[str, Tensor]) -> None:
    """Give ours the recorded values, each exactly once."""
    assert parts.keys() == tensors.keys()
    for name, some in parts.items():
        rows = tensors[name].reshape(len(some), *some[0].shape)
        for parameter, values in zip(some, rows, strict=True):
            parameter.data.copy_(values)


def gradients(parts: Parts) -> dict[str, Tensor]:
    grads = {name: [p.grad for p in some if p.grad is not None] for name, some in parts.items()}
    return {f"grad/{name}": torch.stack(some) for name, some in grads.items()}


def prompts(host: Host, tensors: dict[str, Tensor], method: VPT) -> Parts:
    """Apply VPT; prompts by the names of its originals, in the order of the blocks."""
    applied(host, method)
    ours = dict(trained(host))
    parts = {
        f"prompt_proj.{name}": [ours.pop(f"shared.filling.{name}")]
        for name in ("weight", "bias")
        if method.project
    }
    names = sorted(tensors.keys() - parts.keys(), key=lambda name: (name[:4] == "deep", name))
    left = list(ours.values())
    for name in names:
        parts[name] = [left.pop(0) for _ in range(len(tensors[name]))]
    assert not left
    return parts


def vpt(hosts: Hosts, file: str, case: str, tensors: dict[str, Tensor]) -> VPT:
    config = hosts.manifest[file]["config"]
    width = config["proj"] if "prompt_proj.weight" in tensors else 0
    return VPT(name="vpt", train=[], prompts=config["T"], deep=case != "shallow", project=width)


@pytest.mark.parametrize("case", ["shallow", "deep", "deep_project"])
def test_prompts_in_a_vit(hosts: Hosts, case: str) -> None:
    host, tensors = hosts.build("host_vit"), hosts.state("vpt_vit", f"{case}/param/")
    parts = prompts(host, tensors, vpt(hosts, "vpt_vit", case, tensors))
    load(parts, tensors)
    entering = {}
    for i, block in enumerate(host.get_submodule("blocks")):
        key = f"mid/block{i}_in"
        block.norm1.register_forward_pre_hook(lambda m, x, key=key: entering.update({key: x[0]}))
    image = hosts.arrays("host_vit")["in/image"]
    values, _ = passed(hosts, "vpt_vit", f"{case}/", host, image)
    compare(hosts, "vpt_vit", f"{case}/", values | entering | gradients(parts))


def test_prompts_as_in_adaptformer(hosts: Hosts) -> None:
    """There they stand before the class token, and are dropped behind each block."""
    host, tensors = hosts.build("host_vit"), hosts.state("vpt_adaptformer", "param/")
    method = vpt(hosts, "vpt_adaptformer", "", tensors)
    parts = prompts(host, tensors, method)
    load(parts, tensors)
    values = outputs(host, hosts.arrays("host_vit")["in/image"])
    end = host.prefix + method.prompts
    values |= {
        key: torch.cat((y[:, : host.prefix], y[:, end:]), dim=1)
        for key, y in values.items()
        if key != "mid/patch_embed"
    }
    (values["out/features"] * hosts.arrays("vpt_adaptformer")["upstream/features"]).sum().backward()
    compare(hosts, "vpt_adaptformer", "", values | gradients(parts))


@pytest.mark.parametrize(("case", "name"), [("shallow", "host_swin"), ("deep", "host_swin4")])
def test_prompts_in_a_swin(hosts: Hosts, case: str, name: str) -> None:
    """The original gives windows the prompts of other images; alone, each image has its own."""
    host, image = hosts.build(name), hosts.arrays(name)["in/image"]
    tensors = hosts.state("vpt_swin", f"{case}/param/")
    parts = prompts(host, tensors, vpt(hosts, "vpt_swin", case, tensors))
    load(parts, tensors)
    got, _ = passed(hosts, "vpt_swin", f"{case}/", host, image[:1], "features_batch1")
    values = {"out/features_batch1": got["out/features"]}
    values |= {k.replace("/", "/batch1/"): grad for k, grad in gradients(parts).items()}
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


def ladder(hosts: Hosts, host: Host, kept: list[int], after: bool = False) -> Parts:
    """Apply LST with rungs beside some blocks; its tensors by the names of the original."""
    config = hosts.manifest["lst"]["config"]
    method = LST(
        name="lst",
        train=[],
        reduction=config["rho"],
        drop=[i for i in range(len(host.get_submodule("blocks"))) if i not in kept],
        bias=config["bias"],
        norm=config["final_norm"],
        merge_after=after,
    )
    applied(host, method)

    several = {"blocks": "side_block", "gates": "side_gate_params_v", "downs": "downs"}

    def theirs(name: str) -> str:
        name = name.removeprefix("side.filling.").replace("up.", "final.")
        part, _, rest = name.partition(".")
        if part not in several:
            return name
        number, dot, weight = rest.partition(".")
        return f"{several[part]}.{kept[int(number)]}{dot}{weight}"

    return {theirs(name): [parameter] for name, parameter in trained(host)}


@pytest.mark.parametrize("case", ["all_layers", "residual_after", "dropped_layers"])
def test_a_ladder(hosts: Hosts, case: str) -> None:
    """Gates of dropped layers, which have no gradient in the original, are not in ours."""
    host, tensors = hosts.build("host_vit"), hosts.state("lst", f"{case}/param/")
    kept = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("downs."))
    dropped = set(range(len(host.get_submodule("blocks")))) - set(kept)
    gates = [f"side_gate_params_v.{i}" for i in dropped]
    after = case == "residual_after"
    parts = ladder(hosts, host, kept, after)
    load(parts, {name: t for name, t in tensors.items() if name not in gates})
    filling, seen = host.side.filling, []
    assert filling.blocks[0].attn.num_heads == hosts.manifest["lst"]["config"]["side_heads"]
    if after:
        for part in (*filling.blocks, filling.norm):
            part.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    else:
        for part in (filling.first, *filling.blocks):
            part.register_forward_hook(lambda m, x, y: seen.append(y))
    values: dict[str, Tensor] = {}
    host.side.register_forward_hook(lambda m, x, y: values.update({"out/features": y}))
    host(hosts.arrays("host_vit")["in/image"])
    (values["out/features"] * hosts.arrays("lst")[f"{case}/upstream/features"]).sum().backward()
    values |= {f"mid/s{i}": s for i, s in zip((0, *(i + 1 for i in kept)), seen, strict=True)}
    values |= {f"grad/{name}": torch.zeros(1) for name in gates}
    compare(hosts, "lst", f"{case}/", values | gradients(parts))


def adapter(hosts: Hosts, host: Host, f_emb: Embedding) -> Parts:
    """Apply SAM-Adapter; its tensors by the names of the original."""
    config = hosts.manifest["sam_adapter"]["config"]
    options = {"reduction": config["s"], "tau": config["tau"], "f_emb": f_emb}
    applied(host, SAMAdapter(name="sam_adapter", train=[], **options))
    pairs = [
        (r"shared\.filling\.up", "shared_mlp"),
        (r"shared\.filling\.embedding", "embedding_generator"),
        (r"shared\.filling\.hand", "prompt_generator.proj"),
        (r"blocks\.(\d+)\.before_block\.filling", r"lightweight_mlp_\1.0"),
    ]
    parts: Parts = {}
    for name, parameter in trained(host):
        for ours, theirs in pairs:
            name = re.sub(ours, theirs, name)
        parts[f"prompt_generator.{name}"] = [parameter]
    return parts


@pytest.mark.parametrize(("case", "f_emb"), [("original", "released"), ("unscrambled", "fixed")])
def test_sam_adapter(hosts: Hosts, case: str, f_emb: str) -> None:
    host = hosts.build("host_sam")
    parts = adapter(hosts, host, Embedding[f_emb])
    load(parts, hosts.state("sam_adapter", "original/param/"))
    seen: dict[str, Tensor] = {}
    shared = host.shared.filling
    shared.hand.register_forward_hook(
        lambda m, x, y: seen.update({"mid/highpass_image": x[0], "mid/F_hand_nchw": y})
    )
    shared.embedding.register_forward_hook(lambda m, x, y: seen.update({"mid/F_emb": y}))
    for i, block in enumerate(host.get_submodule("blocks")):
        block.before_block.register_forward_hook(
            lambda m, x, y, i=i: seen.update({f"mid/prompt{i}": y - x[0]})
        )
    image = hosts.arrays("host_sam")["in/image"]
    values, _ = passed(hosts, "sam_adapter", f"{case}/", host, image)
    compare(hosts, "sam_adapter", f"{case}/", values | seen | gradients(parts))


def test_high_pass(hosts: Hosts) -> None:
    images = hosts.state("sam_adapter", "highpass/in/")
    keys = hosts.keys("sam_adapter", "highpass/")
    assert len(keys) == 2 * len(images) == 8
    for key in keys:
        size, tau = key.removeprefix("highpass/out/").split("_tau")
        hosts.check("sam_adapter", key, highpass(images[size], float(tau)))


@torch.no_grad()
def test_high_pass_of_an_elongated_image() -> None:
    """The original leaves its brightness there."""
    bright = torch.ones(1, 3, 16, 128)
    torch.testing.assert_close(highpass(bright, 0.25), 0 * bright)


def drawn(hosts: Hosts, file: str, case: str) -> Parts:
    """What a method draws in a host of a file."""
    if file == "vpt_vit":
        host, tensors = hosts.build("host_vit"), hosts.state(file, f"{case}param/")
        return prompts(host, tensors, vpt(hosts, file, case.strip("/"), tensors))
    if file == "lst":
        return ladder(hosts, hosts.build("host_vit"), [0, 1, 2, 3])
    return adapter(hosts, hosts.build("host_sam"), Embedding.fixed)


DRAWN = {"vpt_vit": ["shallow/", "deep/", "deep_project/"], "lst": [""], "sam_adapter": [""]}


@pytest.mark.parametrize("file", DRAWN)
def test_first_draws(hosts: Hosts, file: str) -> None:
    """Mean, deviation, least, most and share of zeros over three draws, and of the original's."""
    recorded = hosts.state(file, "init/")
    for case in DRAWN[file]:
        torch.manual_seed(0)
        draws = [drawn(hosts, file, case) for _ in range(3)]
        for key in [key for key in recorded if key.startswith(case)]:
            ours = torch.stack([statistics(draw[key.removeprefix(case)]) for draw in draws]).mean(0)
            theirs = recorded.pop(key).mean(0)
            loose = 0.3 * float(theirs[2:4].abs().max())  # zero of what starts at zero
            torch.testing.assert_close(ours, theirs, atol=loose, rtol=0)
    assert not recorded


def statistics(some: list[nn.Parameter]) -> Tensor:
    t = torch.stack(some).detach().double()
    return torch.stack((t.mean(), t.std(correction=0), t.min(), t.max(), (t == 0).double().mean()))

"""Conv-LoRA, and joint LoRA in SAM, against recorded outputs of the released program."""

from __future__ import annotations

import re

import pytest
import torch
from hosts import Hosts, outputs
from recorded import uncompared
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import sam, vit
from segsweep.model.layers.seam import Tokens, auxiliary_losses
from segsweep.peft.apply import apply
from segsweep.peft.conv_lora import ConvLoRA
from segsweep.peft.delta import trained
from segsweep.peft.layers_conv_lora import BALANCE, Gate, LowRankExperts, chances, variation
from segsweep.peft.lora import Fused, LoRA

pytestmark = pytest.mark.golden
modes = pytest.mark.parametrize("mode", ["eval", "train"])
GATE = "lora_moe_gating."
NAMES = {
    r"lora_moe_gating\.w_gate": "gate.weight",
    r"lora_moe_gating\.w_noise": "gate.noise",
    r"lora_moe_experts\.(\d+)\.0\.": r"experts.\1.",
    r"attn\.qkv\.": "beside_qkv.filling.",
}
INPUTS = [r".*/param/.*", r".*/in/.*", r".*/upstream/.*"]
COMPARED = {
    "conv_lora": [
        *(r"module/mid/(e_nchw|expert\d_of_all_samples)", r"module/init_tie/aux", r"init/.*"),
        r"module/mid/(eval|train)/(gap|\w+_logits|noise_std|load|top1_minus_top2|expert)",
        *(r"module/out/(eval|train)/y", r"module/out/eval/y(3d|_single)"),
        *(r"module/aux/(eval|train)/loss", r"module/aux/eval/loss(3d|_single)"),
        *(r"(module|net)/grad/(eval|train)/(task|aux)/.*", r"net/out/(eval|train)/features"),
        *(r"net/mid/(eval|train)/block\d/(expert|top1_minus_top2|out)", r"net/aux/.*/loss_sum"),
    ],
    "ssf_arc_lora_sam_dino": [r"lora_sam/(out|mid|grad)/.*"],
    "dropout_pinned": [r"conv_lora/out/y"],
}
LEFT = {  # with the reason
    "conv_lora": [r"module/init_tie/expert_index"],  # what torch takes of equals; we: the lowest
    "ssf_arc_lora_sam_dino": [r"(ssf|arc)_.*"],  # methods with tests of their own
    "dropout_pinned": [r"(?!conv_lora/).*"],
}


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def test_all_is_compared(hosts: Hosts) -> None:
    known = {file: [*COMPARED[file], *LEFT[file], *INPUTS] for file in COMPARED}
    assert not uncompared(hosts, {**known, f"(?!({'|'.join(known)})$).*": [".*"]})


def ours(name: str) -> str:
    """Our name of a recorded one."""
    for pattern, replacement in NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def check(hosts: Hosts, file: str, key: str, actual: Tensor) -> None:
    """Compare in double precision; what is recorded was computed so, and rounded."""
    expected = hosts.arrays(file)[key].double()
    atol = 2e-7 * float(expected.abs().max()) or 1e-12
    actual = actual.detach().double().reshape(expected.shape)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0, msg=lambda m: f"{key}: {m}")


def doubles(hosts: Hosts, file: str, prefix: str) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in hosts.state(file, prefix).items()}


def pin(monkeypatch: pytest.MonkeyPatch, noise: list[Tensor]) -> None:
    """Let the gates draw recorded noise, in the order of the forward pass."""
    draws = iter(noise)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(draws).to(like))


class Layer(nn.Module):
    """A linear layer and the filling beside it, with recorded parameters."""

    def __init__(self, state: dict[str, Tensor], alpha: float) -> None:
        super().__init__()
        (width, d), (rank, experts) = state["weight"].shape, state[f"{GATE}w_gate"].shape
        self.linear = nn.Linear(d, width)
        self.filling = LowRankExperts(width, rank, alpha / rank, experts, switch=False)
        self.linear.load_state_dict({name: state.pop(name) for name in ("weight", "bias")})
        self.filling.load_state_dict({ours(name): tensor for name, tensor in state.items()})
        self.double().eval()

    def forward(self, x: Tensor, dropped: Tensor | None = None) -> Tensor:
        """(B', H, W, C) -> (B', H, W, 3C); the filling is given the dropped input, if any"""
        u = x if dropped is None else dropped
        tokens = Tokens((x.shape[1], x.shape[2]), images=len(x))
        y = self.filling(self.linear(x).flatten(1, 2), u.flatten(1, 2), tokens)
        return y.unflatten(1, tokens.grid)


@pytest.fixture
def layer(hosts: Hosts) -> Layer:
    alpha = hosts.manifest["conv_lora"]["config"]["module"]["alpha"]
    return Layer(doubles(hosts, "conv_lora", "module/param/"), alpha)


def decisions(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What each gate is given, and which expert it chooses, once the module has run."""
    seen: list[tuple[Tensor, Tensor]] = []
    for gate in (part for part in module.modules() if isinstance(part, Gate)):
        gate.register_forward_hook(lambda _, given, out: seen.append((given[0], out[0])))
    return seen


def unused(expert: Tensor, experts: int) -> Tensor:
    """The balancing loss of the released program in evaluation, which nobody uses."""
    counts = expert.bincount(minlength=experts).double()
    return 2 * BALANCE * variation(counts)


@modes
def test_one_layer(hosts, layer, mode, monkeypatch):
    recorded, gate = hosts.arrays("conv_lora"), layer.filling.gate
    layer.filling.train(mode == "train")
    pin(monkeypatch, [noise := recorded["module/in/noise"].double()])
    x, seen = recorded["module/in/x"].double().requires_grad_(), decisions(layer)
    y = layer(x)
    ((gap, expert),) = seen
    clean = logits = gap @ gate.weight
    values = {f"mid/{mode}/gap": gap, f"mid/{mode}/expert": expert, f"out/{mode}/y": y}
    if mode == "train":
        deviation = nn.functional.softplus(gap @ gate.noise) + 0.01
        logits = clean + noise * deviation
        load = chances(clean, logits, deviation).sum(0)
        values |= {"mid/train/noise_std": deviation, "mid/train/load": load}
        values["mid/train/noisy_logits"] = logits
    first, second = logits.topk(2).values.unbind(1)
    values |= {f"mid/{mode}/clean_logits": clean, f"mid/{mode}/top1_minus_top2": first - second}
    losses = {"task": (y * recorded["module/upstream/y"]).sum(), **balance(layer)}
    values[f"aux/{mode}/loss"] = losses.get("aux", unused(expert, clean.shape[1]))
    check_gradients(hosts, layer.filling, losses, f"module/grad/{mode}/", {"x": x})
    for key, value in values.items():
        check(hosts, "conv_lora", f"module/{key}", value)


def balance(module):
    """The balancing loss, if there is one, as `aux`."""
    losses = auxiliary_losses(module)
    assert losses.keys() <= {"experts"}
    return {"aux": losses["experts"]} if losses else {}


def check_gradients(hosts, module, losses, prefix, inputs):
    """Compare the gradients of each loss apart; what has none is zero, as is that of no loss."""
    parameters = dict(module.named_parameters())
    learning = {name for name, p in parameters.items() if p.requires_grad}
    for kind in ("task", "aux"):
        names = hosts.keys("conv_lora", f"{prefix}{kind}/")
        named = {ours(key.removeprefix(f"{prefix}{kind}/")) for key in names}
        assert named == {*learning, *inputs} or (kind not in losses and not names)
        for tensor in (*parameters.values(), *inputs.values()):
            tensor.grad = None
        if kind in losses:
            losses[kind].backward(retain_graph=True)
        for key in names:
            tensor = (parameters | inputs)[ours(key.removeprefix(f"{prefix}{kind}/"))]
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            check(hosts, "conv_lora", key, gradient)


@torch.no_grad()
def test_every_expert_on_every_sample(hosts, layer):
    x = hosts.arrays("conv_lora")["module/in/x"].double()
    e = (x @ layer.filling.lora_A.T).permute(0, 3, 1, 2)
    check(hosts, "conv_lora", "module/mid/e_nchw", e)
    for i, expert in enumerate(layer.filling.experts):
        check(hosts, "conv_lora", f"module/mid/expert{i}_of_all_samples", expert(e))


@torch.no_grad()
@pytest.mark.parametrize("case", ["3d", "_single"])
def test_a_square_and_a_single_sample(hosts, layer, case):
    recorded = hosts.arrays("conv_lora")
    if case == "_single":
        x = recorded["module/in/x"][:1]
    else:
        x = recorded[f"module/in/x{case}"]
        x = x.unflatten(1, (round(x.shape[1] ** 0.5), -1))
    seen = decisions(layer)
    check(hosts, "conv_lora", f"module/out/eval/y{case}", layer(x.double()))
    loss = unused(seen[0][1], len(layer.filling.experts))
    check(hosts, "conv_lora", f"module/aux/eval/loss{case}", loss)


def test_before_training_all_go_to_the_first_expert(hosts):
    """Recorded is that they all go to one, and what balance that is."""
    recorded = hosts.arrays("conv_lora")["module/init_tie/expert_index"]
    expert, gate = Gate(rank=3, experts=8, switch=False).eval()(torch.randn(len(recorded), 3))
    assert recorded.unique().numel() == 1
    assert not expert.any()
    assert gate.eq(1).all()
    check(hosts, "conv_lora", "module/init_tie/aux", unused(expert, 8))


def test_first_draws(hosts):
    case = "init/ConvLoRALinear(64,192,r=3,M=8)/"
    filling = LowRankExperts(192, 3, 32 / 3, 8, switch=False)
    parameters = dict(filling.named_parameters())
    recorded = hosts.state("conv_lora", case)
    assert {ours(name) for name in recorded} == parameters.keys()
    for name, statistics in recorded.items():
        tensor = parameters[ours(name)].detach()
        _, deviation, least, most, zeros = statistics.mean(0)
        assert tensor.eq(0).float().mean() == zeros
        assert tensor.std() == pytest.approx(float(deviation), rel=0.25)
        assert tensor.min() == pytest.approx(float(least), rel=0.25)
        assert tensor.max() == pytest.approx(float(most), rel=0.25)


def test_drops_are_before_the_low_rank_part(hosts, monkeypatch):
    """Ours drops nothing; what is recorded is that nothing behind the input was dropped."""
    recorded = hosts.arrays("dropout_pinned")
    alpha = hosts.manifest["dropout_pinned"]["config"]["alpha"]
    layer = Layer(doubles(hosts, "dropout_pinned", "conv_lora/param/"), alpha).train()
    x, mask = (recorded[f"conv_lora/in/{name}"].double() for name in ("x", "mask0"))
    pin(monkeypatch, [recorded["conv_lora/in/noise"]])
    check(hosts, "dropout_pinned", "conv_lora/out/y", layer(x, x * mask))


@modes
def test_inside_sam(hosts, mode, monkeypatch):
    recorded, host = hosts.arrays("conv_lora"), hosts.build("host_sam").double()
    rank, experts = recorded[f"net/param/blocks.0.attn.qkv.{GATE}w_gate"].shape
    apply(host, ConvLoRA(name="conv_lora", train=[], rank=rank, experts=experts), {})
    parameters = dict(trained(host))
    for name, tensor in doubles(hosts, "conv_lora", "net/param/").items():
        parameters.pop(ours(name)).data.copy_(tensor)
    assert not parameters
    for filling in (part for part in host.modules() if isinstance(part, LowRankExperts)):
        filling.train(mode == "train")
    depth = len(host.get_submodule("blocks"))
    pin(monkeypatch, [recorded[f"net/in/noise{i}"] for i in range(depth)])
    seen = decisions(host)
    values = outputs(host, hosts.arrays("host_sam")["in/image"].double())
    assert len(seen) == depth
    for i, (_, expert) in enumerate(seen):
        check(hosts, "conv_lora", f"net/mid/{mode}/block{i}/expert", expert)
        check(hosts, "conv_lora", f"net/mid/{mode}/block{i}/out", values[f"mid/block{i}"])
    features = values["out/features"]
    check(hosts, "conv_lora", f"net/out/{mode}/features", features)
    task = (features * recorded["net/upstream/features"].view_as(features)).sum()
    losses = {"task": task, **balance(host)}
    evaluated = sum(unused(expert, experts) for _, expert in seen)
    check(hosts, "conv_lora", f"net/aux/{mode}/loss_sum", losses.get("aux", evaluated))
    check_gradients(hosts, host, losses, f"net/grad/{mode}/", {})


def test_joint_lora_inside_sam(hosts):
    file, case = "ssf_arc_lora_sam_dino", "lora_sam/"
    host, config = hosts.build("host_sam").double(), hosts.manifest[file]["config"]["lora"]
    sizes = {"rank": config["r"], "alpha": config["alpha"]}
    targets = ["*.attn.qkv.weight"]
    apply(host, LoRA(name="lora", train=[], targets=targets, fused=Fused["joint"], **sizes), {})
    parameters = dict(trained(host))
    names = {n: n.replace("qkv.", "qkv.weight.") for n in hosts.state(file, f"{case}param/")}
    assert set(names.values()) == parameters.keys()
    for name, tensor in doubles(hosts, file, f"{case}param/").items():
        parameters[names[name]].data.copy_(tensor)
    values = outputs(host, hosts.arrays("host_sam")["in/image"].double())
    features = values["out/features"]
    upstream = hosts.arrays(file)[f"{case}upstream/features"]
    loss = (features * upstream.view_as(features)).sum()
    grads = torch.autograd.grad(loss, [parameters[own] for own in names.values()])
    values |= {f"grad/{name}": grad for name, grad in zip(names, grads, strict=True)}
    for key in hosts.keys(file, case):
        check(hosts, file, key, values[key.removeprefix(case)])


@pytest.mark.parametrize(
    ("layout", "name", "count"),
    [(vit, "vit_base_patch16_224", 119_232), (sam, "samvit_huge_patch16", 514_560)],
)
def test_counts(layout, name, count):
    with torch.device("meta"):
        host = layout.build(name, {})
    assert apply(host, ConvLoRA(name="conv_lora", train=[]), {}).added == count


def test_places_that_have_no_queries_are_refused():
    with torch.device("meta"):
        host = vit.build("vit_small_patch16_224", {})
    method = ConvLoRA(name="conv_lora", train=[], seams=["*.beside_qkv", "*.1.after_attn"])
    with pytest.raises(UserError, match=r"^peft\.seams: 'blocks\.1\.after_attn' is not beside"):
        apply(host, method, {})

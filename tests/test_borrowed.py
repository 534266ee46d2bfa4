"""Borrowed methods compute what the library's own layers compute, wherever the weight lies."""

import copy
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType
from torch import nn

from segsweep.base.config import fingerprint
from segsweep.base.errors import UserError
from segsweep.base.package import installed
from segsweep.peft.apply import Counts, apply, merge
from segsweep.peft.borrowed import Borrowed
from segsweep.peft.borrowed_layers import Layer
from segsweep.peft.delta import delta_state_dict
from segsweep.results import frame
from segsweep.results.tables import ablation
from segsweep.verbs import params
from tests.records import record, write
from tests.words import class_of, compose, files

WORDS = [word for word in files("peft") if class_of("peft", word) is Borrowed]
TARGETS = ["linear.weight", "attn.in_proj_weight", "conv.weight"]
OPTIONS = {  # smaller, where a word's own size is that of large models
    "adamss": {"num_subspaces": 2},
    "fourierft": {"n_frequency": 40},
    "waveft": {"n_frequency": 40, "scaling": 1.0},
    "randlora": {"randlora_alpha": 16},
}
MATRICES = {  # the library gives their update as a matrix to be added
    *("adamss", "c3a", "deft", "delora", "fourierft", "frod", "gralora", "loha", "lokr", "olora"),
    *("peanut", "psoft", "randlora", "shira", "supertuning", "tinylora", "unilora", "vblora"),
    *("vera", "waveft"),
}
WRONG_IN_THE_LIBRARY = {"c3a"}  # its layer's gradient of the input is not that of its output


class Net(nn.Module):
    """A linear layer, a fused projection and a convolution, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 96, bias=False)
        self.attn = nn.MultiheadAttention(64, 2, bias=False)
        self.conv = nn.Conv2d(32, 64, 2, bias=False)
        self.norm = nn.RMSNorm(64)

    def forward(self, tokens, image):
        fused = F.linear(tokens, self.attn.in_proj_weight)
        return self.linear(tokens), fused, self.conv(image).flatten(2).mT


def method(word: str, **changes: Any) -> Borrowed:
    """A word with its options, smaller where that is faster; composing has a test of its own."""
    content: Any = OmegaConf.load(files("peft")[word])
    del content["_target_"]
    small = {"options": OPTIONS.get(word, {}), "targets": TARGETS, "train": []}
    merged = OmegaConf.merge(OmegaConf.structured(Borrowed), content, small, changes)
    built = OmegaConf.to_object(merged)
    assert isinstance(built, Borrowed)
    return built


@cache
def base() -> Net:
    torch.manual_seed(0)
    return Net().requires_grad_(False)


def applied(chosen: Borrowed, seed: int = 1) -> tuple[Net, Counts]:
    net = copy.deepcopy(base())
    torch.manual_seed(seed)
    return net, apply(net, chosen, {})


class Own(nn.Module):
    """The same with the library's own layers, beside which the rows of the keys lie."""

    def __init__(self, chosen: Borrowed) -> None:
        super().__init__()
        net = base()
        q, self.k, v = net.attn.in_proj_weight.chunk(3)
        self.linear, self.attn = like(net.linear.weight), nn.Module()
        self.attn.in_proj_weight_q, self.attn.in_proj_weight_v = like(q), like(v)
        self.conv = like(net.conv.weight.flatten(1))
        rank = {"r": chosen.rank} if chosen.rank else {}
        kind = PeftType[chosen.tuner]
        told: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        names = [name for name, module in self.named_modules() if isinstance(module, nn.Linear)]
        config = told(target_modules=names, **rank, **chosen.options)
        PEFT_TYPE_TO_TUNER_MAPPING[kind](self, config, "default")
        self.layers = self.linear, self.attn.in_proj_weight_q, self.attn.in_proj_weight_v, self.conv

    def forward(self, tokens, image):
        linear, q, v, conv = self.layers
        fused = torch.cat([q(tokens), F.linear(tokens, self.k), v(tokens)], -1)
        return linear(tokens), fused, conv(F.unfold(image, 2).mT)

    def merged(self) -> list[torch.Tensor]:
        for layer in self.layers:
            layer.merge()
        return [layer.get_base_layer().weight for layer in self.layers]


def like(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def layers_of(net: Net) -> list[Any]:
    edits = [
        *net.linear.parametrizations["weight"],
        *net.attn.parametrizations["in_proj_weight"],
        *net.conv.parametrizations["weight"],
    ]
    assert all(isinstance(edit, Layer) for edit in edits)
    return [edit.layer for edit in edits]


def learning(layer: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in layer.named_parameters() if p.requires_grad}


def move(net: Net, own: Own) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Give both the same trained values, away from their start; return them in pairs."""
    pairs: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    torch.manual_seed(2)
    for ours, theirs in zip(layers_of(net), own.layers, strict=True):
        here, there = learning(ours), learning(theirs)
        assert here.keys() == there.keys()
        for name, parameter in here.items():
            if id(parameter) not in pairs:
                pairs[id(parameter)] = parameter, there[name]
                parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
                there[name].data.copy_(parameter.data)
    return list(pairs.values())


def near(got: Any, expected: Any) -> None:
    for a, b in zip(got, expected, strict=True):
        off, size = (a - b).detach().abs().max(), 1 + b.detach().abs().max()
        assert off <= 1e-6 * size, float(off / size)


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(3)
    shapes = (2, 5, 64), (2, 32, 3, 3)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("word", WORDS)
def test_a_borrowed_method_is_the_librarys_layer(word, monkeypatch):
    monkeypatch.setattr("peft.tuners.boft.layer._FBD_CUDA", False)  # compile nothing
    chosen = method(word)
    net, counts = applied(chosen)
    own = Own(chosen)
    pairs = move(net, own)
    assert counts.added == counts.trainable == sum(a.numel() for a, _ in pairs)
    (got, here), (expected, there) = [(m(*(x := inputs())), x) for m in (net, own)]
    near(got, expected)
    upstream = [torch.randn_like(y) for y in got]
    torch.autograd.backward(got, upstream)
    torch.autograd.backward(expected, upstream)
    near([a.grad for a, _ in pairs], [b.grad for _, b in pairs])
    if word not in WRONG_IN_THE_LIBRARY:
        near([x.grad for x in here], [x.grad for x in there])
    assert merge(net) == []  # type: ignore[comparison-overlap]
    assert net.state_dict().keys() == base().state_dict().keys()
    q, k, v = net.attn.in_proj_weight.chunk(3)
    near([net.linear.weight, q, v, net.conv.weight.flatten(1)], own.merged())
    assert torch.equal(k, own.k)
    near(net(*inputs()), got)
    assert (net.linear.weight - base().linear.weight).abs().max() > 1e-4


@pytest.mark.parametrize("word", WORDS)
def test_what_does_not_train_is_made_again_and_is_in_no_delta(word):
    chosen = method(word)
    net, counts = applied(chosen)
    start = [y - x for y, x in zip(net(*inputs()), base()(*inputs()), strict=True)]
    assert (max(float(d.abs().max()) for d in start) < 1e-6) == chosen.identity
    assert {edit.additive for edit in net.modules() if isinstance(edit, Layer)} == {
        word in MATRICES
    }
    delta = delta_state_dict(net)
    assert sum(t.numel() for t in delta.values()) == counts.added
    for tensor in delta.values():
        tensor.add_(torch.randn_like(tensor), alpha=0.05)
    again, _ = applied(chosen, seed=7)  # another state of the generator
    for name, tensor in delta_state_dict(again).items():
        tensor.copy_(delta[name])
    assert all(map(torch.equal, again(*inputs()), net(*inputs())))


@pytest.mark.parametrize("word", WORDS)
def test_numbers_are_known_without_weights(word):
    chosen = method(word)
    with torch.device("meta"):
        net = Net()
    assert apply(net, chosen, {}) == applied(chosen)[1]
    assert all(p.is_meta for p in net.parameters())


def test_layers_of_one_name_share_a_basis():
    """FRoD tells by names which layers are alike."""
    layers = (nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(8, 8))}) for _ in range(2))
    net = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    chosen = method("frod", targets=["layers.*.mlp.0.weight"])
    apply(net, chosen, {})
    first, second = (edit.layer for edit in net.modules() if isinstance(edit, Layer))
    assert first.frod_V is second.frod_V


def test_a_low_precision_around_it_does_not_reach_the_weight():
    net, _ = applied(method("oft"))
    layers_of(net)[0].oft_R["default"].weight.data.normal_(std=0.1)
    expected = net.linear.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.linear.weight, expected)


@pytest.mark.parametrize(
    ("word", "changes", "message"),
    [
        ("vera", {"options": {"d_inital": 1.0}}, r"d_inital=1.0: .*choose from .*d_initial.*rank"),
        ("vera", {"options": {"r": 2}}, "options.r=2: .* or peft.rank"),
        ("vera", {"options": {"bias": "all"}}, "options.bias=all: .* cannot be told so here"),
        ("vera", {"options": {"d_initial": "much"}}, "d_initial='much': must be float"),
        ("vera", {"options": {"projection_prng_key": 1.5}}, "must be int"),
        ("deft", {"options": {"decomposition_method": "svd"}}, "must be 'relu' or 'qr'"),
        ("boft", {"rank": 2}, "rank=2: BOFT of peft .* has no rank"),
        ("oft", {"rank": 2}, r"peft.tuner=OFT: .*either r \(2\) or oft_block_size"),
        ("c3a", {"options": {"block_size": 24}}, "peft.tuner=C3A: .*factor"),
        ("oft", {"options": {"oft_block_size": 24}}, "peft.tuner=OFT: Invalid .*24"),
        ("vera", {"tuner": "NOVEL"}, "there is no NOVEL of peft .*; try a newer one"),
        ("vera", {"targets": ["norm.weight"]}, "'norm.weight' is no matrix"),
    ],
)
def test_what_the_library_cannot_do_is_said(word, changes, message):
    with pytest.raises(UserError, match=message):
        applied(method(word, **changes))


def config(*words: str) -> Any:
    return compose(["model=maskdino_tiny", "data=digits", *words])


def test_dropout_and_another_version_are_refused_while_composing():
    with pytest.raises(UserError, match=r"peft.options.vera_dropout=0.1: .* leave it out"):
        config("peft=vera", "peft.options.vera_dropout=0.1")
    with pytest.raises(UserError, match=r"peft.version=0.1: installed is peft .*: pip install"):
        config("peft=vera", "peft.version=0.1")


def test_a_folder_of_the_packages_name_is_not_the_package():
    assert installed("json") == ""  # can be imported, has no version


def test_the_librarys_version_is_a_part_of_the_identity_of_these_runs_alone(monkeypatch):
    words = [["peft=vera"], ["peft=lora"]]
    before = [fingerprint(config(*word)) for word in words]
    monkeypatch.setattr("segsweep.base.package.version", lambda package: "99.0")
    after = [fingerprint(config(*word)) for word in words]
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True]


ABSENT = """
import sys
from segsweep.base.config import compose
from segsweep.base.errors import UserError
compose(["peft=vera"])
assert not {"torch", "peft"} & sys.modules.keys()
sys.modules["peft"] = None  # as Python itself notes what must not be found
try:
    compose(["peft=vera"])
except UserError as error:
    print(error)
compose(["peft=lora"])
"""


def test_tables_say_who_counted(tmp_path, capsys):
    write(tmp_path, record("vera", rank=256), record("lora"))
    (table,) = ablation(frame.read(tmp_path).runs)
    assert "Parameters counted by peft: VeRA (r=256)." in table.notes
    params.main(["peft=vera,lora", "--classes", "2"])
    counted = [line for line in capsys.readouterr().out.splitlines() if "counted by peft" in line]
    assert len(counted) == 1
    assert "vera" in counted[0]


def test_without_the_package_composing_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == (
        "peft=vera is a method of the package peft, which is not installed: "
        "pip install 'segsweep[peft]'"
    )

"""The two primitives: edited weights and filled seams, found by name, counted by formula."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segsweep.base.errors import UserError
from segsweep.model.layers.seam import Seam
from segsweep.peft.adapter import Adapter, BottleneckInit, Residual
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import delta_state_dict
from segsweep.peft.ia3 import IA3, Place
from segsweep.peft.lora import Fused, LoRA, LowRankInit
from segsweep.peft.method import Method
from segsweep.peft.places import Places
from segsweep.peft.select import Select
from segsweep.peft.sites import match, resolve

ROLES = {"mixing": ["blocks.*.attn.qkv.weight"], "head": ["head.*"], "seams": ["*.after_attn"]}


class Block(nn.Module):
    """A timm-like block: fused projection, feed-forward, a seam between."""

    def __init__(self, width: int):
        super().__init__()
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)})
        self.after_attn = Seam(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.attn["qkv"](x).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.fc(x + self.after_attn(y, x))


class Net(nn.Module):
    """Two blocks in the place of a backbone, and a head that is known under two names."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 3)
        self.alias = self.head

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double()


def randomise(model, std=0.3):
    """Move every trained tensor away from its start."""
    for tensor in delta_state_dict(model).values():
        tensor.normal_(std=std)


def lora(**kwargs) -> LoRA:
    return LoRA(**{"name": "lora", "targets": ["mixing"], "train": [], "rank": 2, **kwargs})


def adapter(**kwargs) -> Adapter:
    return Adapter(**{"name": "adapter", "train": [], **kwargs})


def test_an_edited_layer_has_the_value_and_all_gradients_of_w_plus_ba():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(5, 7).double())
    apply(layer, lora(targets=["0.weight"], rank=3, alpha=6.0, init=LowRankInit.xavier), {})
    delta = delta_state_dict(layer)
    a, b = (delta[f"0.weight.lora_{x}"].clone().requires_grad_() for x in "AB")
    base = layer.state_dict()["0.parametrizations.weight.original"]
    x = torch.randn(4, 5, dtype=torch.double, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    upstream = torch.randn(4, 7, dtype=torch.double)
    got, expected = layer(x), F.linear(y, base + 2.0 * b @ a, layer[0].bias)
    got.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(x.grad, y.grad)
    factors = [p for p in layer.parameters() if p.requires_grad]
    for factor, reference in zip(factors, (a, b), strict=True):
        torch.testing.assert_close(factor.grad, reference.grad)
    assert (x.grad - upstream @ base).abs().max() > 0.1  # the edit takes part in dL/dx


@pytest.mark.parametrize(("fused", "changed"), [(Fused.qv, "qv"), (Fused.joint, "qkv")])
def test_rows_of_a_fused_weight(net, fused, changed):
    before = {n: p.clone() for n, p in net.named_parameters()}
    counts = apply(net, lora(fused=fused), ROLES)
    assert counts.added == 2 * 4 * 2 * 12  # 4 r d per fused weight either way
    randomise(net)
    merge(net)
    for block in range(2):
        name = f"blocks.{block}.attn.qkv.weight"
        rows = zip(before[name].chunk(3), dict(net.named_parameters())[name].chunk(3), strict=True)
        assert "".join(n for n, (a, b) in zip("qkv", rows, strict=True) if a.ne(b).any()) == changed


def test_joint_edit_has_joint_rank_and_pairs_do_not(net):
    for fused, rank in ((Fused.joint, 2), (Fused.qv, 4)):
        model = copy.deepcopy(net)
        apply(model, lora(fused=fused), ROLES)
        randomise(model)
        weight = model.blocks[0].attn["qkv"].weight
        edit = weight - model.blocks[0].attn["qkv"].parametrizations.weight.original
        assert torch.linalg.matrix_rank(edit) == rank


def test_merge_keeps_outputs_and_restores_the_names_of_the_base(net):
    names, x = set(net.state_dict()), torch.randn(2, 5, 12, dtype=torch.double)
    apply(net, lora(), ROLES)
    randomise(net)
    before = net(x)
    assert merge(net) == []
    assert set(net.state_dict()) == names
    torch.testing.assert_close(net(x), before, atol=1e-12, rtol=0)


def test_merge_names_the_adapters_that_stay(net):
    apply(net, adapter(), ROLES)
    assert merge(net) == ["blocks.0.after_attn", "blocks.1.after_attn"]


def test_edits_and_fillings_compile_into_one_graph(net):
    apply(net, IA3(name="ia3", train=[], rows=["*.qkv.weight:k"], columns=["*.fc.weight"]), ROLES)
    lora(targets=["*.qkv.weight:v"]).inject(Places(net, ROLES))
    adapter().inject(Places(net, ROLES))
    randomise(net)
    x = torch.randn(2, 5, 12, dtype=torch.double)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.parametrize("residual", Residual)
@pytest.mark.parametrize("repeats", [1, 3])
def test_adapters_follow_their_recurrence(net, residual, repeats):
    apply(net, adapter(residual=residual, repeats=repeats, reduction=3), ROLES)
    randomise(net)
    stream, y = torch.randn(2, 2, 5, 12, dtype=torch.double)
    rho = {"kappa": stream, "lambda": y, "kappa+lambda": stream + y}[residual.name]
    delta, x = delta_state_dict(net), y
    for j in range(repeats):
        at = f"blocks.0.after_attn.filling.{j}"
        x = F.linear(x, delta[f"{at}.down.weight"], delta[f"{at}.down.bias"]).relu()
        x = F.linear(x, delta[f"{at}.up.weight"], delta[f"{at}.up.bias"]) + rho
    torch.testing.assert_close(net.blocks[0].after_attn(y, stream), x)


@pytest.mark.parametrize("init", BottleneckInit)
def test_adapter_inits(init):
    torch.manual_seed(0)
    wide = nn.Sequential(Seam(256), nn.Linear(1, 1))
    apply(wide, adapter(init=init, seams=["0"]), {"0": ["0"]})
    chain: Any = wide[0].filling
    layers = chain[0].down, chain[0].up
    down, up = (layer.weight.detach() for layer in layers)
    deviation = {"zero_up": 0.0, "xavier": (2 / 320) ** 0.5, "bert": 0.02, "near_identity": 0.88e-3}
    assert up.std().item() == pytest.approx(deviation[init.name], rel=0.05)
    assert down.std().item() > 0
    assert all(layer.bias.abs().max() == 0 for layer in layers)


def test_lora_inits():
    torch.manual_seed(0)
    for init in LowRankInit:
        layer = nn.Sequential(nn.Linear(256, 768, bias=False))
        apply(layer, lora(targets=["0.weight"], rank=4, init=init, fused=Fused.joint), {})
        delta = delta_state_dict(layer)
        a = 256**-0.5 / 3**0.5 if init is LowRankInit.standard else (2 / 260) ** 0.5
        b = 0.0 if init is LowRankInit.standard else (2 / 772) ** 0.5
        assert delta["0.weight.lora_A"].std().item() == pytest.approx(a, rel=0.08)
        assert delta["0.weight.lora_B"].std().item() == pytest.approx(b, rel=0.08)


def test_ia3_scales_what_keys_values_and_hidden_features_are(net):
    qkv, fc = (copy.deepcopy(layer) for layer in (net.blocks[0].attn["qkv"], net.blocks[0].fc))
    rows = ["blocks.*.attn.qkv.weight:k", "blocks.*.attn.qkv.weight:v"]
    method = IA3(name="ia3", train=[], rows=rows, columns=["blocks.*.fc.weight"])
    counts = apply(net, method, ROLES)
    assert counts.added == counts.trainable == 2 * 3 * 12
    assert method.mergeable
    randomise(net)
    delta, x = delta_state_dict(net), torch.randn(2, 5, 12, dtype=torch.double)
    k, v, hidden = (
        delta[f"blocks.0.{name}.ia3"]
        for name in ("attn.qkv.weight:k", "attn.qkv.weight:v", "fc.weight")
    )
    expected = qkv(x) * torch.cat((torch.ones(12), k, v))
    for merged in (False, True):
        if merged:
            assert merge(net) == []
            assert net.state_dict().keys() == Net().state_dict().keys()
        torch.testing.assert_close(net.blocks[0].attn["qkv"](x), expected)
        torch.testing.assert_close(net.blocks[0].fc(x), fc(x * hidden))


def test_ia3_scales_what_attention_gives(net):
    method = IA3(name="ia3", train=[], place=Place.activations)
    assert apply(net, method, ROLES).added == 2 * 12
    assert not method.mergeable
    randomise(net)
    y, stream = torch.randn(2, 2, 5, 12, dtype=torch.double)
    scale = delta_state_dict(net)["blocks.0.after_attn.filling.ia3"]
    torch.testing.assert_close(net.blocks[0].after_attn(y, stream), scale * y)


def test_counts_are_of_tensors_not_of_names(net):
    counts = apply(net, Select(name="head", train=["head"]), ROLES)
    assert (counts.trainable, counts.added) == (3 * 12 + 3, 0)
    assert counts.total == sum(p.numel() for p in net.parameters())
    assert counts.percent == 100 * counts.trainable / counts.total
    assert set(delta_state_dict(net)) == {"head.weight", "head.bias"}


def test_a_pattern_may_use_any_name_of_a_tensor(net):
    assert [site.name for site in match(net, ["alias.*", "head.bias"])] == [
        "head.weight",
        "head.bias",
    ]


def test_a_method_whose_formula_is_wrong_is_caught(net):
    class Wrong(LoRA):
        def size(self, shape):
            return 2 * super().size(shape)

    with pytest.raises(RuntimeError, match=r"192 of .* by the method's formula 384"):
        apply(net, Wrong(name="wrong", targets=["mixing"], train=[], rank=2), ROLES)


class Shared(Method):
    """One table of d numbers that the fillings of all seams read, and a scale at each."""

    def inject(self, places):
        table = nn.Parameter(torch.zeros(12))

        def filling(width):
            module = nn.Identity()
            module.table, module.scale = table, nn.Parameter(torch.ones(1))
            return module

        return places.fill(["seams"], filling)

    def size(self, shape):
        return 1

    def once(self, places):
        ((width,),) = set(places.values())
        return width


def test_what_places_share_is_counted_once(net):
    counts = apply(net, Shared(name="shared"), ROLES)
    assert (counts.added, counts.trainable) == (12 + 2, 12 + 2)
    assert len(delta_state_dict(net)) == 3


@pytest.mark.parametrize("formula", ["size", "once"])
def test_both_parts_of_a_formula_are_held_against_the_count(net, monkeypatch, formula):
    monkeypatch.setattr(Shared, formula, lambda method, argument: 0)
    with pytest.raises(RuntimeError, match=r"shared: 14 of .* by the method's formula"):
        apply(net, Shared(name="shared"), ROLES)


def test_patterns_are_no_substrings_and_misses_name_near_weights(net):
    with pytest.raises(UserError, match="matches none of the 12 weights"):
        match(net, ["qkv"])
    with pytest.raises(UserError, match=r"did you mean 'blocks\.\*\.attn\.qkv\.weight'"):
        match(net, ["*.atn.qvk.weight"])
    with pytest.raises(UserError, match=r"none of the 2 seams .* 'blocks\.\*\.after_attn'"):
        Places(net, ROLES).seams(["*.after_ffn"])
    with pytest.raises(
        UserError, match="'heda' is no role of this model; choose from mixing, head"
    ):
        resolve(["heda"], ROLES)


@pytest.mark.parametrize("pattern", ["head.weight:q", "blocks.0.attn.qkv.weight:w", "head.bias:q"])
def test_rows_must_exist(net, pattern):
    net.head = net.alias = nn.Linear(12, 4)
    with pytest.raises(UserError, match="names no third of a weight"):
        match(net, [pattern])


def test_a_place_is_edited_once(net):
    apply(net, lora(), ROLES)
    with pytest.raises(UserError, match="edited already"):
        lora().inject(Places(net, ROLES))
    adapter().inject(Places(net, ROLES))
    with pytest.raises(UserError, match="filled already"):
        adapter().inject(Places(net, ROLES))


def test_only_matrices_take_factors(net):
    with pytest.raises(UserError, match=r"'head.bias' is no matrix"):
        apply(net, lora(targets=["head.bias"]), ROLES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lora(rank=0), "peft.rank=0: the rank must be at least 1"),
        (lambda: lora(alpha=0.0), "peft.alpha=0.0: the scale alpha must be positive"),
        (lambda: adapter(repeats=0), "peft.repeats=0: must be at least 1"),
        (lambda: adapter(reduction=5).hidden(12), "reduction=5 does not divide the width 12"),
    ],
)
def test_sizes_are_checked(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_what_only_selects_needs_no_code():
    assert Select(name="x").inject(Places(nn.Linear(1, 1), {})) == {}
    assert Method(name="x").size((3, 3)) == 0


class Layered(nn.Module):
    """Two stacks of two layers with a seam each, an encoder's and a decoder's."""

    def __init__(self):
        super().__init__()
        for part in ("encoder", "decoder"):
            layers = [nn.ModuleDict({"fc": nn.Linear(4, 4), "after": Seam(4)}) for _ in range(2)]
            self.add_module(part, nn.ModuleList(layers))
        self.fc = nn.Linear(4, 4)


LAYERED = {"encoder": ["encoder.*"], "decoder": ["decoder.*"], "linears": ["*fc.weight"]}


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("", ["encoder.0.fc", "encoder.1.fc", "decoder.0.fc", "decoder.1.fc", "fc"]),
        ("encoder", ["encoder.0.fc", "encoder.1.fc"]),
        ("last:3", ["encoder.1.fc", "decoder.0.fc", "decoder.1.fc"]),
        ("last:9", ["encoder.0.fc", "encoder.1.fc", "decoder.0.fc", "decoder.1.fc"]),
    ],
)
def test_a_scope_leaves_what_lies_in_it(scope, names):
    places = Places(Layered(), LAYERED, scope)
    assert [site.name for site in places.weights(["linears"])] == [f"{n}.weight" for n in names]
    seams = [name.replace("fc", "after") for name in names if "." in name]
    assert list(places.seams(["*.after"])) == seams


def test_a_scope_counts_the_layers_that_a_word_names():
    """The last of those in which a method has places, not of all."""
    places = Places(Layered(), LAYERED, "last:1")
    assert [site.name for site in places.weights(["encoder.*.fc.weight"])] == [
        "encoder.1.fc.weight"
    ]


def test_a_scope_in_which_nothing_lies_is_refused():
    with pytest.raises(UserError, match=r"peft\.scope=decoder: nothing that encoder.* may"):
        Places(Layered(), LAYERED, "decoder").weights(["encoder.*"])


def test_what_is_edited_does_not_train_itself(net):
    with pytest.raises(UserError, match=r"peft\.train names 'blocks.*weight', which is"):
        apply(net, lora(train=["blocks.0.attn.qkv.weight"]), ROLES)

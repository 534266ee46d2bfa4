"""AdaptFormer, Adapter+, LoRand and Mona give the numbers of the programs that they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hosts import Hosts, passed
from injected import ours
from recorded import uncompared
from torch import Tensor, nn

from segsweep.model.layers.seam import Place, Tokens, seams
from segsweep.peft.adapter_parallel import PLACES, AdapterParallel, Norm, Position, Scaling
from segsweep.peft.adapter_plus import AdapterPlus
from segsweep.peft.delta import trained
from segsweep.peft.lorand import LoRand, Second, synthesis
from segsweep.peft.method import Method
from segsweep.peft.mona import Mona
from tests.small_hosts import applied

pytestmark = pytest.mark.golden

MODULES = {  # cases of one module by itself
    "adapter_parallel": ["ln_none", "ln_in", "ln_out", "ln_none_learnable"],
    "lorand": [""],
    "mona": [""],
}
NETS = {  # cases of a host, and which
    "adapter_parallel": {"net_vit/parallel": "vit", "net_vit/sequential": "vit"},
    "adapter_parallel_002": {"net_dino": "dino", "net_sam": "sam"},
    "adapter_plus": {"post": "vit", "pre": "vit", "pfeiffer": "vit", "intermediate": "vit"}
    | {"houlsby": "vit", "parallel": "vit", "post_dino": "dino", "houlsby_dino": "dino"},
    "lorand": {"net_dino": "dino", "net_sam": "sam"},
    "lorand_swin": {"net_swin_v1": "swin", "net_swin_v2": "swin"},
    "mona": {"net_swin": "swin"},
}
DROPOUT = "dropout_pinned"
DROPPED = {
    "adaptformer": AdapterParallel(train=[], scale=0.5),  # which the manifest does not tell
    "adapter_plus": AdapterPlus(train=[], drop_path=0.0),
    "mona": Mona(train=[]),
}
ELSEWHERE = [  # cases of that file that are not compared here, and why
    "adapter_plus_pre",  # dropout of what that program's LoRA reads, none of its adapters' own
    "lora_(joint|grouped)",  # ours edits weights, so nothing is there to be dropped
    "(conv_lora|vfm|hom|arc)",  # other methods
]
NAMES = [
    (r"\b(adaptmlp|adapter_mlp|adapter|adapter_lorand2|my_module_2)\.", "last.filling."),
    (r"\b(adapter_attn|adapter_lorand1|my_module_1)\.", "first.filling."),
    (r"\b(bottleneck\.1|(adapter_)?down_proj)\.", "bottleneck.down."),
    (r"\b(bottleneck\.4|(adapter_)?up_proj)\.", "bottleneck.up."),
    (r"scaling$", "scale"),
    (r"adapter_layer_norm_before|norm_a", "norm_in"),
    (r"param_dict\.DP(\d+)", r"P/\1"),
    (r"param_dict\.DQ(\d+)", r"Q/\1"),
    (r"param_dict\.UP(\d+)", r"R/\1"),
    (r"param_dict\.UQ(\d+)", r"S/\1"),
    (r"param_dict\.K(\d+)", r"K/\1"),
    (r"bias_(.)$", r"b_\1"),
    (r"gammax$", "gamma_x"),
    (r"project1\.", "down."),
    (r"project2\.", "up."),
    (r"adapter_conv\.conv1", "depthwise.0"),
    (r"adapter_conv\.conv2", "depthwise.1"),
    (r"adapter_conv\.conv3", "depthwise.2"),
    (r"adapter_conv\.projector", "pointwise"),
]


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def test_every_case_is_compared(hosts):
    """Each of them as a whole: `compare` takes all that was recorded."""
    cases = {file: [*some, "init"] for file, some in NETS.items()}
    for file, some in MODULES.items():
        cases[file] += [f"module/{case}".rstrip("/") for case in some]
    cases[DROPOUT] = [*DROPPED, *ELSEWHERE]
    known = {file: [rf"{case}/.+" for case in some] for file, some in cases.items()}
    assert not cases.keys() & uncompared(hosts, known).keys()


class Wide(LoRand):
    """With a bottleneck of one size whatever the width, as in the recorded ones."""

    mid = 0

    def hidden(self, width: int) -> int:
        return self.mid


def method_of(hosts: Hosts, file: str, case: str) -> tuple[Method, str]:
    """The method of a recorded case, and the place of its only or second module."""
    config: dict[str, Any] = hosts.manifest[file]["config"]
    if file == "mona":
        return Mona(train=[], hidden=config["width"]), "after_block"
    if file.startswith("lorand"):
        second = Second["after_block" if case.endswith("v2") else "before_mlp"]
        config = hosts.manifest["lorand"]["config"]
        method = Wide(train=[], second=second, branches=config["alpha"], kernel=config["beta"])
        method.mid = config["mid"]
        return method, second.value
    if file == "adapter_plus":
        config = config[case]
        fixed = isinstance(config["scaling"], float)
        method = AdapterPlus(
            train=[],
            position=Position[config["config"]],
            hidden=config["dim"],
            scaling=Scaling["fixed" if fixed else config["scaling"]],
            scale=config["scaling"] if fixed else 1.0,
            norm=Norm["in" if config["norm_layer"] else "none"],
        )
    else:
        norm = config.get("ln") or (re.findall(r"ln_(in|out)", case) or ["none"])[0]
        sequential = case.endswith("sequential")
        method = AdapterParallel(
            train=[],
            position=Position["sequential" if sequential else "parallel"],
            hidden=config["h"],
            scaling=Scaling["learned" if case.endswith("learnable") else "fixed"],
            scale=1.0 if sequential else config["s"],  # which the manifest does not tell apart
            norm=Norm[norm],
        )
    return method, PLACES[method.position.name][-1].removeprefix("*.")


def compare(hosts: Hosts, file: str, case: str, values: dict[str, Tensor]) -> None:
    """Compare all that was recorded of a case, which was computed in double precision."""
    recorded = hosts.keys(file, case)
    assert recorded
    for key in recorded:
        expected, actual = hosts.arrays(file)[key].double(), values[key.removeprefix(case)]
        close = partial(torch.testing.assert_close, msg=lambda m, key=key: f"{key}: {m}")
        atol = 2e-7 * expected.abs().max().item()
        close(actual.detach().reshape(expected.shape), expected, atol=atol, rtol=0)


def part(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor, or one of those that are stacked in it."""
    path, _, index = name.partition("/")
    return tensors[path][int(index)] if index else tensors[path]


def put(model: nn.Module, recorded: dict[str, Tensor], names: dict[str, str]) -> None:
    """Fill all that trains with recorded tensors, `names` are ours of them."""
    parameters = {name: p.data for name, p in trained(model)}
    assert sum(t.numel() for t in recorded.values()) == sum(map(torch.numel, parameters.values()))
    assert len(set(names.values())) == len(recorded)
    for name, tensor in recorded.items():
        part(parameters, names[name]).copy_(tensor)


@pytest.mark.parametrize(("file", "case"), [(f, c) for f, cases in NETS.items() for c in cases])
def test_in_a_host(hosts, file, case):
    kind = f"host_{NETS[file][case]}"
    method, last = method_of(hosts, file, case)
    first = "after_attn_sum" if file == "mona" else "after_attn"
    host = hosts.build(kind)
    applied(host, method)
    host.double().eval()
    recorded = hosts.state(file, f"{case}/param/")
    places = [(r"\blast\b", last), (r"\bfirst\b", first)]
    names = {name: ours(name, [*NAMES, *places]) for name in recorded}
    put(host, recorded, names)
    values, grads = passed(hosts, file, f"{case}/", host, hosts.arrays(kind)["in/image"].double())
    values |= {f"grad/{name}": part(grads, names[name]) for name in recorded}
    compare(hosts, file, f"{case}/", values)


def alone(method: Method, width: int) -> Any:
    """The filling of a method in a place of this width."""
    model: Any = nn.ModuleDict({"block": nn.ModuleDict({"norm": nn.LayerNorm(width)})})
    names = ("after_attn", "after_attn_sum", "after_norm2", "after_mlp", "after_block")
    model["block"].update({name: Place(width) for name in names})
    applied(model, method)
    return next(s.filling for s in seams(model).values() if s.filling is not None)


def filled(method: Method, recorded: dict[str, Tensor], width: int) -> tuple[Any, dict[str, str]]:
    """The same with recorded tensors, and our names of them."""
    filling = alone(method, width)
    names = {name: ours(name, NAMES) for name in recorded}
    if any(name.startswith("norm_out") for name, _ in trained(filling)):
        names = {name: our.replace("norm_in", "norm_out") for name, our in names.items()}
    put(filling.double(), recorded, names)
    return filling, names


def run(filling: Any, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """What a module of the originals gives: of a branch, what is added."""
    parallel = getattr(filling, "of_stream", False)
    return filling(torch.zeros_like(x) if parallel else x, x, Tokens(grid))


@pytest.mark.parametrize(("file", "case"), [(f, c) for f, cases in MODULES.items() for c in cases])
def test_a_module(hosts, file, case):
    prefix = f"module/{case}/".replace("//", "/")
    recorded, tensors = (hosts.state(file, prefix + kind) for kind in ("param/", ""))
    x = tensors["in/x"].double().requires_grad_()
    filling, names = filled(method_of(hosts, file, case)[0], recorded, x.shape[-1])
    grid = re.search(r"map (\d+)x(\d+)", hosts.manifest[file]["title"])
    y = run(filling.eval(), x, (int(grid[1]), int(grid[2])) if grid else (0, 0))
    (y * tensors["upstream/y"]).sum().backward()
    grads = {name: p.grad for name, p in trained(filling) if p.grad is not None}
    values = {"out/y": y, "out/with_residual": x + y, "grad/x": x.grad}
    values |= {f"grad/{name}": part(grads, names[name]) for name in recorded}
    if file == "lorand":
        factors = dict(filling.named_parameters())
        for name, parts in {"W_D": "PKQ", "W_U": "RKS"}.items():
            values[f"mid/{name}"] = synthesis(*(factors[part] for part in parts))
    compare(hosts, file, prefix, values)


class Pinned(nn.Module):
    """Dropout with a recorded mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


@pytest.mark.parametrize(("case", "method"), DROPPED.items())
def test_dropout_is_where_the_originals_have_it(hosts, case, method):
    config, tensors = hosts.manifest["dropout_pinned"]["config"], hosts.state(DROPOUT, f"{case}/")
    x, mask = tensors["in/x"].double(), tensors["in/mask0"]
    method = replace(method, hidden=mask.shape[-1], dropout=config["p"])
    recorded = hosts.state(DROPOUT, f"{case}/param/")
    filling, _ = filled(method, recorded, x.shape[-1])
    owner = getattr(filling, "bottleneck", filling)
    assert owner.dropout.p == config["p"]
    owner.dropout = Pinned(mask)
    values = {"out/y": run(filling.train(), x, config["grid"])}
    compare(hosts, DROPOUT, f"{case}/", values)


DRAWN = {  # by the numbers in the names of modules whose first values were recorded
    "adapter_parallel": lambda width, hidden: AdapterParallel(train=[], hidden=hidden),
    "adapter_plus": lambda width, hidden: AdapterPlus(train=[], hidden=hidden),
    "lorand": lambda width, mid, alpha, beta: LoRand(
        train=[], branches=alpha, kernel=beta, reduction=width // mid
    ),
    "mona": lambda width: Mona(train=[]),
}


def statistics(tensor: Tensor) -> list[float]:
    """Mean, deviation, least, greatest, and the share of zeros."""
    zeros = (tensor == 0).double().mean()
    return [v.item() for v in (tensor.mean(), tensor.std(), tensor.min(), tensor.max(), zeros)]


@pytest.mark.parametrize("file", DRAWN)
def test_first_values_are_distributed_as_in_the_originals(hosts, file):
    recorded = hosts.state(file, "init/")
    module = next(iter(recorded)).partition("/")[0]
    width, *numbers = (int(n) for n in re.findall(r"\d+", module.partition("(")[2]))
    torch.manual_seed(0)
    drawn = [dict(trained(alone(DRAWN[file](width, *numbers), width))) for _ in range(3)]
    for key, rows in recorded.items():
        name = ours(key.removeprefix(f"{module}/"), NAMES)
        tensors = torch.stack([part(tensors, name).detach() for tensors in drawn])
        (mean, *rest), (wanted, *others) = statistics(tensors), rows.mean(0).tolist()
        assert rest == pytest.approx(others, rel=0.25), key
        assert mean == pytest.approx(wanted, rel=1e-5, abs=others[0] / 2), key

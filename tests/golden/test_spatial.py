"""VFM-Adapter, Convpass and Rein against recorded outputs of the original programs."""

from __future__ import annotations

import re
from collections import defaultdict
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hosts import Hosts, compare, outputs, passed
from injected import ours
from recorded import uncompared
from torch import nn

from segsweep.model.layers.seam import Tokens
from segsweep.peft.convpass import ConvInit, Convpass
from segsweep.peft.delta import trained
from segsweep.peft.layers_rein import Projections, Refinement
from segsweep.peft.layers_spatial import Hypernet
from segsweep.peft.rein import Rein, TokenForm
from segsweep.peft.vfm_adapter import DPG, VFMAdapter
from tests.small_hosts import applied

pytestmark = pytest.mark.golden

PLACE = "beside_attn"
PLAIN = {"scale": 1.0, "dropout": 0.0}
NAMES = [  # of an adapter by itself, then of those in a host
    (r"adapter_conv_hypernet\.", f"{PLACE}."),
    (r"adapter_(down|up|conv)\.", r"\1."),
    (r"meta_net\.linear([12])\.", lambda match: f"conv.meta.{2 * int(match[1]) - 2}."),
    (r"w2\.", "rows."),
    (r"w1\.", "taps."),
    (r"mask_token\.", "masks."),
    (r"adapter_(attn|mlp)\.", r"beside_\1.filling."),
    (r"shared\.(hypernet_)?", r"shared.filling.\1"),
    (r"hypernet_(attn|mlp)\.", r"beside_\1."),
    (r"learnable_tokens(_a)?$", "tokens.0"),
    (r"learnable_tokens_b$", "tokens.1"),
    ("mlp_token2feat", "token_to_feature"),
    ("mlp_delta_f", "to_change"),
]
LINK = "trans", "merge"  # layers that make queries of tokens
KNOWN = {
    "vfm_adapter": [
        r"(vit|bhwc|static_hom_vit)/(param/.+|in/x|upstream/y|out/y|grad/.+)",
        r"(vit|bhwc)/(mid/(F_patches|H_sum_over_T|kernel)|out/train_dropout0/y)",
        r"(vit|bhwc)/mid/mask",  # is kept nowhere; H is made of it
        r"hypernet_default_variant/(param/[wb][12]|in/z|out/kernel)",
        r"init/.+",
    ],
    r"vfm_(dino|sam|swin)": [r"param/.+|upstream/features|out/features|mid/block\d|grad/.+"],
    "rein": [
        r"(lora|full)/(param/.+|mid/block\d|upstream/.+|out/(last_block|queries)|grad/.+)",
        r"init/.+/(scale|learnable_tokens_[ab]|mlp_.+)",
        r"init/.+/(transform|merge)\..+",  # of a link to queries, which heads here do not have
    ],
    "dropout_pinned": [r"(vfm|hom)/(param/.+|in/(x|mask\d)|out/y)", r"(?!vfm|hom).+"],
    r"(?!vfm_|rein|dropout_).+": [r".+"],  # of other methods
}


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def test_everything_recorded_is_compared(hosts):
    assert uncompared(hosts, KNOWN) == {}


def vfm(hosts, file, case="", **options):
    """The method of a case, with the sizes of its weights."""
    sizes = {name: tensor.shape for name, tensor in hosts.state(file, f"{case}param/").items()}

    def size(ending):
        return next(shape for name, shape in sizes.items() if name.endswith(ending))

    masks, embedding = size("mask_token.weight")
    rank, width, meta = size("down.bias")[0], size("w1.weight")[1], size("linear1.bias")[0]
    own = {"rank": rank, "embedding": embedding, "meta_width": meta, "kernel_width": width}
    return VFMAdapter(name="", train=[], masks=masks, **own, **options)


def width(hosts, file):
    """Channels of the recorded tokens."""
    return hosts.manifest[file]["config"]["d"]


def static(hosts, file, word, **options):
    """A filling with a learned kernel, of one method or the other."""
    options |= {"name": word, "rank": hosts.manifest[file]["config"]["r"]}
    if word == "convpass":
        return Convpass(**options).filling(width(hosts, file))
    return VFMAdapter(dpg=DPG.none, **options).filling(PLACE, width(hosts, file))


class Alone:
    """A filling by itself with the recorded weights of a case, and what is recorded of it."""

    def __init__(self, hosts, file, case, filling, shared):
        config, self.tensors = hosts.manifest[file]["config"], hosts.state(file, f"{case}/")
        x = self.tensors["in/x"]
        grid = x.shape[1:3] if x.ndim == 4 else config.get("grid_vit", config.get("grid"))
        self.filling, self.x = filling, x.reshape(len(x), -1, x.shape[-1]).requires_grad_()
        self.tokens = Tokens(tuple(grid), self.x.shape[1] - prod(grid), shared=shared)
        added = {**dict(filling.named_parameters()), **dict(shared.named_parameters())}
        names = hosts.state(file, f"{case}/param/")
        self.parameters = {name: added[ours(name, NAMES)] for name in names}
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.tensors[f"param/{name}"])

    def output(self):
        """What is added to a stream."""
        return self.filling(torch.zeros_like(self.x), self.x, self.tokens)

    def values(self):
        """Output and gradients by recorded names."""
        y = self.output()
        (y * self.tensors["upstream/y"].reshape(y.shape)).sum().backward()
        grads = {f"grad/{name}": parameter.grad for name, parameter in self.parameters.items()}
        return {"out/y": y, "grad/x": self.x.grad, **grads}


@pytest.mark.parametrize("case", ["vit", "bhwc"])
def test_a_vfm_adapter_by_itself(hosts, case):
    method = vfm(hosts, "vfm_adapter", f"{case}/", **PLAIN)
    filling, shared = method.filling(PLACE, width(hosts, "vfm_adapter")), method.shared()
    alone = Alone(hosts, "vfm_adapter", case, filling, shared)
    values, cells = alone.values(), alone.x[:, alone.tokens.prefix :]
    codes = filling.conv.codes(cells, shared)
    values |= {"mid/F_patches": filling.conv.meta(cells), "mid/H_sum_over_T": codes}
    values |= {"mid/kernel": shared[PLACE](codes), "out/train_dropout0/y": alone.output()}
    compare(hosts, "vfm_adapter", f"{case}/", values, but="mid/mask")


@pytest.mark.parametrize("word", ["convpass", "vfm_adapter"])
def test_a_bypass_with_a_learned_kernel(hosts, word):
    filling = static(hosts, "vfm_adapter", word, **PLAIN)
    alone = Alone(hosts, "vfm_adapter", "static_hom_vit", filling, nn.ModuleDict())
    compare(hosts, "vfm_adapter", "static_hom_vit/", alone.values())


@torch.no_grad()
def test_the_hypernetwork_of_the_original_with_transposed_weights(hosts):
    case = "hypernet_default_variant/"
    weights = hosts.state("vfm_adapter", f"{case}param/")
    width, taps = weights["w1"].shape
    hypernet = Hypernet(len(weights["w2"]), width, taps // 9)
    for number, layer in enumerate((hypernet.taps, hypernet.rows), start=1):
        layer.weight.copy_(weights[f"w{number}"].T)
        layer.bias.copy_(weights[f"b{number}"])
    kernel = hypernet(hosts.arrays("vfm_adapter")[f"{case}in/z"][None])
    compare(hosts, "vfm_adapter", case, {"out/kernel": kernel})


class Pinned(nn.Module):
    """Dropout by a recorded mask."""

    def __init__(self, tensors):
        super().__init__()
        self.mask = torch.cat([t for name, t in sorted(tensors.items()) if "in/mask" in name])

    def forward(self, x):
        return x * self.mask


@pytest.mark.parametrize("case", ["vfm", "hom"])
def test_dropout_comes_behind_the_second_phi(hosts, case):
    method = vfm(hosts, "dropout_pinned", "vfm/", scale=1.0)
    filling, shared = method.filling(PLACE, width(hosts, "dropout_pinned")), method.shared()
    if case == "hom":
        filling, shared = static(hosts, "dropout_pinned", "convpass", scale=1.0), nn.ModuleDict()
    alone = Alone(hosts, "dropout_pinned", case, filling, shared)
    filling.dropout = Pinned(alone.tensors)
    compare(hosts, "dropout_pinned", f"{case}/", {"out/y": alone.output()})


def put(host, tensors):
    """Give all that a method added recorded values."""
    added = dict(trained(host))
    assert added.keys() == tensors.keys()
    for name, parameter in added.items():
        parameter.data.copy_(tensors[name])


@pytest.mark.parametrize("file", ["vfm_dino", "vfm_sam", "vfm_swin"])
def test_vfm_adapters_in_a_host(hosts, file):
    config = hosts.manifest[file]["config"]
    host, image = hosts.build(config["host"]), hosts.arrays(config["host"])["in/image"]
    applied(host, vfm(hosts, file, scale=config["s"]))
    host.eval()
    state = hosts.state(file, "param/")
    put(host, {ours(name, NAMES): tensor for name, tensor in state.items()})
    values, grads = passed(hosts, file, "", host, image)
    compare(hosts, file, "", values | {f"grad/{name}": grads[ours(name, NAMES)] for name in state})


def by_our_names(name, tensor, d):
    """A recorded tensor by our names: of learned tokens one per block."""
    path = ours(name, NAMES)
    if path.startswith("tokens"):
        return {f"blocks.{i}.after_block.filling.{path}": rows for i, rows in enumerate(tensor)}
    return {f"shared.filling.{d}.{path}": tensor}


def queries(learned, link):
    """The original's link from tokens (L, m, d) to queries: their largest, mean and last."""
    each = F.linear(learned, link["transform.weight"], link["transform.bias"])
    parts = torch.stack((each.max(0).values, each.mean(0), each[-1]), dim=-1)
    return F.linear(parts.flatten(-2), link["merge.weight"], link["merge.bias"])


@pytest.mark.parametrize(("case", "form"), [("lora", "low_rank"), ("full", "full")])
def test_rein_in_a_vit(hosts, case, form):
    """Recorded gradients are those of queries too, which the test makes, no head of ours."""
    config, tensors = hosts.manifest["rein"]["config"], hosts.state("rein", f"{case}/")
    host, image = hosts.build(config["host"]), hosts.arrays(config["host"])["in/image"]
    sizes = {"length": config["token_length"], "rank": config["lora_dim"]}
    applied(host, Rein(name="rein", train=[], form=TokenForm[form], **sizes))
    state = hosts.state("rein", f"{case}/param/")
    link = {n: state.pop(n).clone().requires_grad_() for n in [*state] if n[:5] in LINK}
    names = {name: by_our_names(name, tensor, host.side.width) for name, tensor in state.items()}
    put(host, {k: t for own in names.values() for k, t in own.items()})
    values = outputs(host, image)
    fillings = [block.after_block.filling for block in host.get_submodule("blocks")]
    values["out/last_block"] = values[f"mid/block{len(fillings) - 1}"]
    values["out/queries"] = queries(torch.stack([f.learned() for f in fillings]), link)
    ends = ("last_block", "queries")
    sum((values[f"out/{end}"] * tensors[f"upstream/{end}"]).sum() for end in ends).backward()
    grads = {name: parameter.grad for name, parameter in trained(host)}
    values |= {f"grad/{n}": torch.stack([grads[k] for k in own]) for n, own in names.items()}
    values |= {f"grad/{name}": tensor.grad for name, tensor in link.items()}
    compare(hosts, "rein", f"{case}/", values)


def fresh(key, shapes):
    """New modules of ours like those whose first draw was recorded."""
    word, sizes = re.fullmatch(r"(\w+)\((.+)\)", key).groups()
    size = {k: int(v) for k, v in re.findall(r"([A-Za-z]+)=?(\d+)", sizes)}
    if word == "LoRAReins":
        length, rank = shapes["learnable_tokens_a"][1:]
        return [Refinement(size["d"], length, rank, size["p"] ** 2), Projections(size["d"], 1e-3)]
    if word == "Convpass":
        init = ConvInit.xavier if "True" in sizes else ConvInit.identity
        return [Convpass(name="", rank=size["r"], init=init).filling(size["d"])]
    z = shapes["mask_token.weight"][1]
    sizes = {"rank": size["r"], "masks": size["T"], "embedding": z, "kernel_width": size["low"]}
    method = VFMAdapter(name="", **sizes, meta_width=shapes["meta_net.linear1.bias"][0])
    return [method.filling(PLACE, size["d"]), method.shared()]


def statistics(tensor):
    """Mean, standard deviation, least, most, share of zeros."""
    parts = (tensor.mean(), tensor.std(correction=0), tensor.min(), tensor.max())
    return [part.item() for part in (*parts, (tensor == 0).float().mean())]


@pytest.mark.parametrize("file", ["vfm_adapter", "rein"])
def test_first_draws(hosts, file):
    torch.manual_seed(0)
    recorded = defaultdict(dict)
    for key, info in hosts.manifest[file]["init"].items():
        module, _, name = key.partition("/")
        recorded[module][name] = info["shape"]
    for module, shapes in recorded.items():
        parts = fresh(module, shapes)
        parameters = {n: p.detach() for part in parts for n, p in part.named_parameters()}
        for name in filter(lambda name: not name.startswith(LINK), shapes):
            tensor = parameters[ours(name, NAMES)]
            mean, *others = hosts.arrays(file)[f"init/{module}/{name}"].mean(0).tolist()
            got, *rest = statistics(tensor)
            assert got == pytest.approx(mean, abs=6 * others[0] / tensor.numel() ** 0.5 + 1e-9)
            assert rest == pytest.approx(others, rel=0.2, abs=1e-6), name

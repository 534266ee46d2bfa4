"""Fillings that are affine maps become parts of the layers that read them, where that is exact."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.exporting import checkpoint
from segsweep.model.backbones import sam, swin, vit
from segsweep.model.backbones.host import Host
from segsweep.model.layers.seam import seams
from segsweep.peft.apply import apply, merge
from segsweep.peft.arc import ARC, Swin
from segsweep.peft.delta import base_hash, trained
from segsweep.peft.ssf import SSF
from segsweep.run.restore import Restored, assemble
from tests.records import record
from tests.small_hosts import applied, images, small_host
from tests.small_sam import ONE, built


def moved(host: Host, method: Any) -> Host:
    """Apply a method, and give what it trains values that training could have given it."""
    torch.manual_seed(1)
    applied(host, method)
    for _, parameter in trained(host):
        nn.init.normal_(parameter, std=0.3)
    return host.eval()


def arc(**options: Any) -> ARC:
    return ARC(name="arc", train=[], rank=3, **options)


def staying(host: Host) -> set[str]:
    """Merge; the outputs are the same, on maps that are no multiple of the windows, too."""
    with torch.no_grad():
        before, left = host(images(80, 112)), merge(host)
        for a, b in zip(host(images(80, 112)), before, strict=True):
            torch.testing.assert_close(a, b)
    return set(left)


@pytest.mark.parametrize(
    ("layout", "method", "left"),
    [
        ("vit", arc(), []),
        ("sam", arc(), ["blocks.0.after_norm1"]),  # the other block has no windows
        ("swin", arc(swin=Swin.port), ["after_norm1"]),
        ("swin", arc(swin=Swin.released), ["after_norm1", "after_attn_sum"]),
        ("sam", SSF(name="ssf", train=[]), []),
    ],
)
def test_what_is_folded_where(layout: str, method: Any, left: list[str]) -> None:
    host = moved(small_host(layout), method)
    assert staying(host) == {name for name in seams(host) if name.endswith(tuple(left))}


@pytest.mark.parametrize(
    ("reader", "place"),
    [
        ("beside_qkv", "after_norm1"),
        ("beside_attn", "after_norm1"),
        ("beside_mlp", "after_norm2"),
    ],
)
def test_what_another_filling_reads_stays(reader: str, place: str) -> None:
    class Read(nn.Module):
        def forward(self, y: Any, u: Any, tokens: Any) -> Any:
            return y + u.mean(2, keepdim=True)

    host = moved(small_host("vit"), arc())
    host.get_submodule("blocks.1").get_submodule(reader).filling = Read()
    assert staying(host) == {f"blocks.1.{name}" for name in (place, reader)}


def test_a_base_that_shares_its_weights_stays_as_it_is() -> None:
    base = small_host("vit")
    before = copy.deepcopy(base.state_dict())
    sharing = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    assert not staying(moved(sharing, arc()))
    assert all(map(torch.equal, base.state_dict().values(), before.values()))


def test_a_layer_without_a_bias_is_not_given_one() -> None:
    host = moved(small_host("vit", qkv_bias=False), arc())
    assert staying(host) == {"blocks.0.after_norm1", "blocks.1.after_norm1"}
    with pytest.raises(UserError, match=r"no bias to shift beside 'backbone\.blocks\.0\.attn\.qkv"):
        moved(small_host("vit", qkv_bias=False), SSF(name="ssf", train=[]))


def test_every_layer_of_the_neck_has_a_scale_and_a_shift() -> None:
    chosen, model, _ = built(ONE, None)
    plain: Any = copy.deepcopy(model.backbone)
    method = SSF(name="ssf", train=[], targets=[], neck=True)
    assert apply(model, method, chosen.roles).trainable == 4 * 2 * 16
    torch.manual_seed(1)
    added = {name: nn.init.normal_(vector) for name, vector in trained(model)}
    for i in range(4):
        scale = added[f"backbone.neck.{i}.weight.ssf_scale"]
        shift = added[f"backbone.neck.{f'{i}.bias' if i % 2 else f'after_{i}.filling'}.ssf_shift"]
        scale, shift = scale[:, None, None], shift[:, None, None]
        plain.neck[i].register_forward_hook(lambda m, x, z, a=scale, b=shift: a * z + b)
    x = torch.randn(1, 3, 32, 32)
    (expected,) = plain(x)
    torch.testing.assert_close(model.backbone(x)[0], expected)
    assert merge(model) == ["backbone.neck.after_0", "backbone.neck.after_2"]
    torch.testing.assert_close(model.backbone(x)[0], expected)
    with pytest.raises(UserError, match=r"peft\.neck=true: model=maskdino_tiny has no neck of SAM"):
        compose(["model=maskdino_tiny", "data=digits", "peft=ssf", "peft.neck=true"])


@pytest.mark.parametrize("words", [["peft=arc"], ["peft=ssf", "peft.neck=true"]])
def test_what_stays_beside_what_is_folded_is_written_and_loaded(words: list[str], tmp_path) -> None:
    config = compose(["model=sam_tiny", "data=digits_semantic", *words])
    classes = config.data.texts()
    model, _, _ = assemble(config, classes, Subject(classes, "semantic"))
    for _, parameter in trained(model):
        parameter.data += 0.05 * torch.randn_like(parameter)
    told: Any = record(config.peft.name, model="sam_tiny", data="digits_semantic")
    told["params"]["base_hash"], told["data"]["classes"] = base_hash(model), classes
    restored = Restored(tmp_path, config, told, model.eval())
    lines = checkpoint.write(restored, tmp_path / "merged.safetensors")
    assert "cannot be folded" in lines[2]


VIT_H = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
MERGING = ["backbone.norm3.weight", "*.downsample.norm.weight"]


@pytest.mark.parametrize(
    ("layout", "name", "kwargs", "more", "of_ssf", "of_arc"),
    [
        (vit, "vit_base_patch16_224", {}, ["backbone.norm.weight"], 205_824, 96_432),
        (vit, "vit_base_patch16_224", VIT_H, ["backbone.norm.weight"], 906_240, 213_120),
        (sam, "samvit_huge_patch16", {}, ["backbone.neck.[13].weight"], 904_704, 213_120),
        (swin, "swin_base_patch4_window12_384", {}, ["backbone.norm3.weight"], 267_264, 218_464),
        (swin, "swin_base_patch4_window12_384", {}, MERGING, 274_432, 218_464),
    ],
)
def test_counts(
    layout: Any, name: str, kwargs: dict[str, int], more: list[str], of_ssf: int, of_arc: int
) -> None:
    with torch.device("meta"):
        host = layout.build(name, kwargs)
    assert applied(host, ARC(name="arc", train=[])).trainable == of_arc
    words = SSF(name="ssf").targets
    assert applied(host, SSF(name="ssf", train=[], targets=[*words, *more])).trainable == of_ssf


def test_counts_of_a_published_table() -> None:
    """SAM-H for one foreground, whose mask decoder trains beside."""
    config = compose(["model=sam_h", "data=kvasir", "peft=ssf", "peft.neck=true"])
    with torch.device("meta"):
        model = config.model.build(ONE)
    assert apply(model, config.peft, config.model.roles).trainable == 4_411_264

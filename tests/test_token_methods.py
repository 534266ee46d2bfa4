"""Prompts, side networks and prompts of the image: what no recorded output shows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from segsweep.base.errors import Unfit, UserError
from segsweep.model.backbones import sam, swin, vit
from segsweep.model.family import BLOCK_ROLES
from segsweep.model.layers.block import HostBlock, WindowBlock
from segsweep.model.layers.seam import seams
from segsweep.peft.apply import apply
from segsweep.peft.delta import trained
from segsweep.peft.lst import LST
from segsweep.peft.method import Method
from segsweep.peft.places import Places
from segsweep.peft.sam_adapter import SAMAdapter
from segsweep.peft.vpt import VPT
from tests.small_hosts import Model, applied, blocks, images, layouts, small_host
from tests.words import compose


def method(word: str, **options: Any) -> Method:
    """A method of this file for a bare host."""
    kinds = {"vpt": VPT, "lst": LST, "sam_adapter": SAMAdapter}
    return kinds[word](name=word, train=[], **options)


@layouts
@pytest.mark.parametrize("deep", [False, True])
@torch.no_grad()
def test_images_of_a_batch_have_nothing_to_do_with_each_other(layout: str, deep: bool) -> None:
    host = small_host(layout)
    applied(host, method("vpt", prompts=3, deep=deep))
    both = host(images(80, 112))
    for i in range(2):
        for together, alone in zip(both, host(images(80, 112)[i : i + 1]), strict=True):
            torch.testing.assert_close(together[i : i + 1], alone)


@layouts
@pytest.mark.parametrize("deep", [False, True])
@torch.no_grad()
def test_prompts_act_as_keys_and_values_alone(layout: str, deep: bool) -> None:
    """Where no cell attends to them, the host is what it was, biases of positions included."""
    host = small_host(layout)
    plain, count = host(images(80, 112)), 3
    applied(host, method("vpt", prompts=count, deep=deep))
    assert not any(map(torch.equal, plain, host(images(80, 112))))
    start = host.prefix
    for block in blocks(host):
        block.mix = partial(without, block.mix, start, start + count)  # type: ignore[method-assign]
    for a, b in zip(plain, host(images(80, 112)), strict=True):
        torch.testing.assert_close(a, b)


def without(
    mix: Any, start: int, end: int, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> Tensor:
    """Mix as a block does, as if keys from `start` to `end` were infinitely far."""
    k, v = (torch.cat((t[:, :, :start], t[:, :, end:]), dim=2) for t in (k, v))
    if bias is not None:
        assert not bias[..., start:end].any()
        bias = torch.cat((bias[..., :start], bias[..., end:]), dim=3)
    return mix(q, k, v, bias)


@pytest.mark.parametrize(("layout", "project"), [("swin", 0), ("vit", 4), ("sam", 0)])
def test_prompts_start_within_the_bound_of_their_source(layout: str, project: int) -> None:
    """Which in a Swin is that of the first blocks for all, whatever their width."""
    host = small_host(layout)
    patch, width = host.patch_embed.patch_size[0], blocks(host)[0].prompts.width
    applied(host, method("vpt", prompts=99, deep=True, project=project))
    bound = (6 / (3 * patch**2 + (project or width))) ** 0.5
    for name, prompts in trained(host):
        if name.endswith("prompts"):
            assert 0.98 * bound < prompts.abs().max() <= bound


@pytest.mark.parametrize("layout", ["vit", "sam"])
def test_no_gradient_enters_the_backbone_from_its_ladder(layout: str) -> None:
    host = small_host(layout)
    applied(host, method("lst", reduction=2))
    host.requires_grad_(True)
    torch.stack([y.square().sum() for y in host(images())]).sum().backward()
    moved = {name for name, p in host.named_parameters() if p.grad is not None and p.grad.any()}
    behind = {name for name, _ in host.named_parameters() if name.startswith(("neck", "norm."))}
    assert moved == behind | {name for name, _ in host.named_parameters() if "side" in name}


@pytest.mark.parametrize("rel_pos", [True, False])
def test_side_blocks_are_those_of_the_host(rel_pos: bool) -> None:
    host = small_host("sam")
    counts = applied(host, method("lst", reduction=2, rel_pos=rel_pos))
    side = [m for m in host.side.filling.modules() if isinstance(m, HostBlock)]
    for own, new in zip(host.blocks, side, strict=True):
        assert isinstance(new, WindowBlock)
        assert type(new) is type(own)
        assert (new.window, new.attn.num_heads) == (own.window, own.attn.num_heads)
        assert new.attn.use_rel_pos is rel_pos
    tables = sum(p.numel() for name, p in trained(host) if ".rel_pos_" in name)
    assert tables == rel_pos * sum(b.attn.rel_pos_h.numel() for b in host.blocks)  # 2 halves
    assert counts.added > tables


@pytest.mark.parametrize(("word", "place"), [("vpt", "prompts"), ("sam_adapter", "before_block")])
def test_a_scope_keeps_methods_to_the_last_block(word: str, place: str) -> None:
    host, options = small_host("vit"), {} if word == "vpt" else {"reduction": 2}
    applied(host, method(word, scope="last:1", **options))
    filled = [name for name, seam in seams(host).items() if seam.filling is not None]
    assert [name for name in filled if name != "shared"] == [f"blocks.1.{place}"]


def test_a_ladder_within_a_scope_has_rungs_beside_its_blocks() -> None:
    """Which is the ladder whose other rungs are dropped."""
    ladders = []
    for options in ({"scope": "last:1"}, {"drop": [0]}):
        host = small_host("sam")
        torch.manual_seed(2)
        applied(host, method("lst", reduction=2, **options))
        ladders.append(host)
    for one, other in zip(*(host(images()) for host in ladders), strict=True):
        assert torch.equal(one, other)


VIT, SAM = "vit_base_patch16_224", "samvit_huge_patch16"
SWIN = "swin_base_patch4_window12_384"


@pytest.mark.parametrize(
    ("layout", "name", "word", "options", "count"),
    [
        (vit, VIT, "vpt", {"prompts": 10}, 7_680),
        (vit, VIT, "vpt", {"prompts": 10, "deep": True}, 92_160),
        (vit, VIT, "vpt", {"prompts": 10, "deep": True, "project": 50}, 6_000 + 39_168),
        (vit, VIT, "lst", {"reduction": 16}, 856_860),
        (vit, VIT, "sam_adapter", {}, 63_312),
        (sam, SAM, "vpt", {"prompts": 10}, 12_800),
        (sam, SAM, "vpt", {"prompts": 10, "deep": True}, 409_600),
        (sam, SAM, "lst", {"rel_pos": False}, 5_976_592),
        (sam, SAM, "lst", {}, 5_976_592 + 12_640),
        (sam, SAM, "sam_adapter", {}, 186_960),
        (sam, SAM, "sam_adapter", {"reduction": 16}, 475_040),
        (swin, SWIN, "vpt", {"prompts": 10}, 1_280),
        (swin, SWIN, "vpt", {"prompts": 10, "deep": True}, 120_320),  # 12,032 channels in all
    ],
)
def test_counts(layout: Any, name: str, word: str, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        host = layout.build(name, {})
    assert applied(host, method(word, **options)).trainable == count


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["vpt", "peft.prompts=12", "peft.deep=true"], 3_997_056),
        (["sam_adapter", "peft.reduction=16"], 3_980_576),
        (["lst", "peft.rel_pos=false"], 9_482_128),
    ],
)
def test_counts_beside_the_mask_decoder(words: list[str], count: int) -> None:
    """Those of the study of Conv-LoRA; it prints 11.49 M for LST, which no setting gives."""
    word, *options = words
    config = compose(["model=sam_h", "data=digits_binary", f"peft={word}", *options])
    with torch.device("meta"):
        model = config.model.build(config.data.subject())
    assert apply(model, config.peft, config.model.roles).trainable == count


@pytest.mark.parametrize(
    ("layout", "word", "options", "said"),
    [
        (
            "sam",
            "lst",
            {"reduction": 8},
            r"=8 does not divide the width 4 of the heads; .* 1, 2, 4$",
        ),
        ("vit", "lst", {"reduction": 1, "drop": [1, 2]}, r"peft.drop=\[2\]: .* blocks 0 to 1$"),
        ("vit", "lst", {"reduction": 1, "drop": [0, 1]}, r"peft.drop=\[0, 1\] leaves no block"),
        ("sam", "sam_adapter", {"reduction": 3}, r"peft.reduction=3 .* 8 .* from 1, 2, 4, 8$"),
    ],
)
def test_what_does_not_fit_is_said(
    layout: str, word: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        applied(small_host(layout), method(word, **options))


def test_no_prompts_are_refused_while_composing() -> None:
    with pytest.raises(UserError, match=r"peft.prompts=0: must be at least 1"):
        compose(["model=sam_tiny", "peft=vpt", "peft.prompts=0"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["peft=lst"], "peft=lst"),
        (["peft=sam_adapter"], "peft=sam_adapter"),
        (["peft=vpt", "peft.deep=true", "peft.project=4"], "peft.project=4 with peft.deep=true"),
    ],
)
def test_blocks_of_several_widths_are_refused_while_composing(words: list[str], said: str) -> None:
    swin = ["model.backbone.layout=swin", "model.backbone.name=swin_tiny_patch4_window7_224"]
    with pytest.raises(
        Unfit, match=rf"^{said} needs blocks of one width, .*=swin has not; .*sam\|vit"
    ):
        compose([*words, *swin])


def test_what_a_method_added_is_no_place_of_the_next() -> None:
    host = small_host("vit")
    applied(host, method("lst", reduction=2))
    places = Places(Model(host), BLOCK_ROLES)
    assert list(places.blocks()) == ["backbone.blocks.0", "backbone.blocks.1"]
    assert list(places.seams(["seams"])) == [
        f"{name}.{place}" for name in places.blocks() for place in ("after_attn", "after_mlp")
    ]
    assert len(places.weights(["linears"])) == 4 * 2

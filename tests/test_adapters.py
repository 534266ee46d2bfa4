"""Adapters in the blocks of ViT, SAM and Swin: how many parameters, and what they do to tokens."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.model.layers.seam import Tokens
from segsweep.peft.adapter import Adapter, Residual
from segsweep.peft.adapter_parallel import AdapterParallel, Position
from segsweep.peft.adapter_plus import AdapterPlus
from segsweep.peft.apply import apply
from segsweep.peft.layers import Bottleneck, Branch
from segsweep.peft.layers_mona import Cognitive
from segsweep.peft.lorand import LoRand
from segsweep.peft.mona import Mona
from tests.small_hosts import applied
from tests.words import compose

HOSTS = {
    "vit": "vit_base_patch16_224",
    "sam": "samvit_huge_patch16",
    "swin": "swin_base_patch4_window12_384",
}
BOTH = ["*.after_attn", "*.after_mlp"]
COUNTS: list[tuple[Any, dict[str, int]]] = [
    (AdapterParallel(), {"vit": 1_189_632, "sam": 5_285_888, "swin": 1_553_664}),
    (Adapter(seams=BOTH, reduction=12), {"vit": 2_379_264}),  # Houlsby's, h = 64
    (Adapter(seams=BOTH, reduction=20), {"sam": 10_571_776}),
    (AdapterPlus(), {"vit": 165_984, "sam": 737_536}),
    (LoRand(), {"vit": 2_996_736, "sam": 13_275_136}),
    (LoRand(branches=2, kernel=8), {"vit": 763_392, "sam": 3_387_392}),
    (Mona(), {"vit": 2_684_928, "sam": 11_517_952, "swin": 3_667_456}),
]


@pytest.mark.parametrize("layout", HOSTS)
def test_counts_are_those_of_the_formulas(layout):
    for method, counts in COUNTS:
        if layout in counts:
            with torch.device("meta"):
                host = import_module(f"segsweep.model.backbones.{layout}").build(HOSTS[layout], {})
            assert applied(host, replace(method, train=[])).trainable == counts[layout]


def test_two_adapters_of_two_channels_in_every_block_are_those_of_the_study_of_conv_lora():
    """Its Adapter trains 3.92 M of SAM ViT-H."""
    options = ["peft=adapter", "peft.residual=lambda", "peft.reduction=640"]
    config = compose(["model=sam_h", "data=kvasir", *options])
    with torch.device("meta"):
        model = config.model.build(Subject(["polyp"], "semantic"))
    assert apply(model, config.peft, config.model.roles).trainable == 3_915_264
    assert config.peft.residual is Residual["lambda"]
    assert config.peft.identity


ON_SAM = ["model=sam_tiny", "data=kvasir"]


def test_a_word_of_another_study_is_a_position():
    position = compose([*ON_SAM, "peft=adapter_plus", "peft.position=pfeiffer"]).peft.position
    assert position is Position["post"]
    assert position.name == "post"  # so both are one run
    assert Position["sequential"].name == "intermediate"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["peft=adapter_plus", "peft.drop_path=1"], "peft.drop_path=1.0: must be less than 1"),
        (["peft=lorand", "peft.kernel=0"], "peft.kernel=0: must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        compose([*ON_SAM, *options])


def test_a_reduction_that_does_not_divide_the_width_is_refused_with_those_that_do():
    with pytest.raises(UserError, match=r"peft\.reduction=5 .* width 12 .* 1, 2, 3, 4, 6, 12"):
        LoRand(reduction=5).hidden(12)


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_an_image_has_its_branch_whole_or_not_at_all():
    branch = Branch(Bottleneck(8, 2, "bert"), False, 1.0, drop_path=0.25)
    torch.nn.init.normal_(branch.bottleneck.up.bias)
    y = tokens(64, 5, 8)
    added = branch.eval()(y, y) - y
    torch.manual_seed(0)
    dropped = branch.train()(y, y) - y
    kept = dropped.abs().amax((1, 2)) > 0
    assert 0.6 < kept.float().mean() < 0.9
    torch.testing.assert_close(dropped[kept], added[kept] / 0.75, atol=1e-5, rtol=1e-5)


def test_mona_leaves_tokens_without_a_place_alone():
    module, y = Cognitive(8, 4, 0.0), tokens(2, 3 + 20, 8)
    z = module(y, y, Tokens((4, 5), prefix=3))
    assert torch.equal(z[:, :3], y[:, :3])
    torch.testing.assert_close(z[:, 3:], module(y[:, 3:], y[:, 3:], Tokens((4, 5))))
    moved = y.clone()
    moved[0, 3] += 1  # the first cell: its row and columns see it, the last cell does not
    changed = (module(moved, y, Tokens((4, 5), prefix=3)) - z).abs().amax(2)[0, 3:] > 1e-6
    assert changed.view(4, 5)[:, :4].all()
    assert not changed.view(4, 5)[:, 4].any()

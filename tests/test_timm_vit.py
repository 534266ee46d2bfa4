"""Any vision transformer of timm: a map of every kind of class, methods in it, and its licence."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.model.backbones.base import Backbone
from segsweep.model.family import BLOCK_ROLES, BackboneConfig, Repatch
from segsweep.model.files import BaseWeights
from segsweep.peft.apply import apply
from segsweep.peft.lora import LoRA
from segsweep.verbs import plan

SIZES: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
# one of each class, of the newer ones one of each way to code positions
KINDS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_siglip_224": {},  # a head that pools by attention
    "vit_base_patch14_reg4_dinov2": {},
    "vit_small_patch16_dinov3": {},
    "eva02_tiny_patch14_224": {},
    "vit_pe_core_tiny_patch16_384": {},
    "deit_tiny_distilled_patch16_224": {},
    "naflexvit_base_patch16_gap": {},
    "xcit_nano_12_p16_224": {},
    "samvit_base_patch16": {"neck_chans": 24},
    "beit_base_patch16_224": {"img_size": [64, 96]},
    "vit_relpos_small_patch16_224": {"img_size": [64, 96]},
}


def built(name: str, **kwargs: Any) -> Backbone:
    return BackboneConfig(name, "timm_vit", {**SIZES, **kwargs}).build()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_one_map_and_takes_edits_of_its_attention(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.add_module("backbone", backbone := built(name, **KINDS[name]))
    apply(model, LoRA("lora", targets=["attention"], train=[], rank=2), BLOCK_ROLES)
    (found,) = backbone.train()(torch.randn(2, 3, 64, 96))
    stride = backbone.strides[0]
    assert found.shape == (2, backbone.channels[0], -(-64 // stride), -(-96 // stride))
    found.square().mean().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum("lora_B" in name for name in trained) >= 2 * 2  # queries and values of two blocks
    assert all(p.grad is not None for p in trained.values())


def test_its_map_is_the_last_one_of_timm_normed() -> None:
    backbone = built("vit_small_patch16_dinov3").eval()
    theirs: Any = timm.create_model("vit_small_patch16_dinov3", dynamic_img_size=True, **SIZES)
    theirs.eval()
    names = {name.removeprefix("model."): t for name, t in backbone.state_dict().items()}
    left = theirs.load_state_dict(names, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith(("head", "fc_norm")) for name in left.missing_keys)
    image = torch.randn(1, 3, 80, 48)
    tokens = theirs.forward_features(image)[:, theirs.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (5, 3))
    torch.testing.assert_close(backbone(image)[0], expected)


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("mixer_s16_224", {}, "is no vision transformer with one map"),
        ("resnet10t", {}, "is no vision transformer with one map"),
        ("beit_base_patch16_224", SIZES, r"takes no images .*kwargs.img_size=\[height,width\]"),
        ("vit_tiny_patch16_225", {}, "timm has no such model"),
    ],
)
def test_others_are_refused_in_a_sentence(name: str, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"model\.backbone\.name={name}.*{said}"):
        BackboneConfig(name, "timm_vit", kwargs).build()


def test_images_of_another_size_than_the_only_one_are_refused() -> None:
    with pytest.raises(UserError, match=r"img_size=\[64, 96\]: there are images of 64 x 64"):
        built("beit_base_patch16_224", img_size=[64, 96])(torch.randn(1, 3, 64, 64))


def test_a_file_of_timm_is_read_in_the_sizes_of_the_model() -> None:
    name = "vit_base_patch14_reg4_dinov2"
    theirs = timm.create_model(name, img_size=42, num_classes=5, **SIZES).state_dict()
    options = BackboneConfig(name, "timm_vit", {**SIZES, "patch_size": 16, "img_size": 32})
    backbone = options.build()
    found = options.weights(theirs, backbone)
    assert {n: t.shape for n, t in found.items()} == {
        n: t.shape for n, t in backbone.state_dict().items()
    }
    assert torch.equal(found["model.norm.weight"], theirs["norm.weight"])


@pytest.mark.parametrize(
    ("name", "layout", "kwargs", "count"),
    [
        ("vit_base_patch14_dinov2", "vit", {"patch_size": 16, "img_size": 1024}, 88_812_288),
        ("vit_huge_patch14_224", "vit", {"patch_size": 16, "img_size": 1024}, 635_910_400),
        ("samvit_base_patch16", "sam", {}, 89_670_912),
        ("swin_base_patch4_window12_384", "swin", {}, 86_880_376),
    ],
)
def test_full_sizes(name: str, layout: str, kwargs: dict[str, Any], count: int) -> None:
    """DINOv2-B is 97,962,458 of Table 1 without the 9,150,170 of neck and head, SAM-B alike."""
    with torch.device("meta"):
        backbone = BackboneConfig(name, layout, kwargs).build()
    assert sum(p.numel() for p in backbone.parameters()) == count
    if layout == "vit":
        assert backbone.get_submodule("norm").eps == 1e-6


def test_the_licence_is_that_of_the_address_or_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    assert BaseWeights.of("https://a.org/b.pth#licence=mit&megabytes=3").licence == "mit"
    words = ["model=sam_b", "data=digits_binary", "peft=frozen"]
    assert compose(words).model.licence == "apache-2.0"
    of_timm = ["model.weights=null", "model.backbone.pretrained=true"]
    pretrained = compose([*words, *of_timm])
    assert pretrained.model.licence == "apache-2.0"
    pretrained.model.backbone.name = "vit_huge_patch14_224.mae"
    assert pretrained.model.licence == "cc-by-nc-4.0"
    pretrained.model.backbone.name = "VisionTransformerSAM"
    assert pretrained.model.licence == ""
    assert compose([*words, "model.weights=null"]).model.licence == ""
    plan.main(words)
    assert "licence of the base weights of model=sam_b: apache-2.0" in capsys.readouterr().out


def test_what_timm_fetches_is_re_patched_by_timm() -> None:
    options = {"name": "vit_base_patch14_dinov2", "layout": "vit", "pretrained": True}
    with pytest.raises(UserError, match=r"repatch=bicubic: .* by pi; choose .*repatch=pi"):
        BackboneConfig(**options, kwargs={"patch_size": 16})
    BackboneConfig(**options, kwargs={"patch_size": 16}, repatch=Repatch["pi"])

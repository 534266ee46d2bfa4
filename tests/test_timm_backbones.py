"""Any timm model by name works or is refused in a sentence: `scripts/try_timm.py` tries more."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from segsweep.base.errors import UserError
from segsweep.model.backbones import STRIDES, is_pyramid, layouts
from segsweep.model.backbones.base import Backbone
from segsweep.model.family import BackboneConfig

ONE_SIZE = ("coat_lite_tiny", {"serial_depths": [1] * 4, "embed_dims": [8, 16, 24, 32]})


def built(name: str, **kwargs: Any) -> Backbone:
    torch.manual_seed(0)
    return BackboneConfig(name, "timm", kwargs).build()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("test_convnext", {}),  # modules in a row
        ("mambaout_femto", {"depths": [1] * 4, "dims": [8, 8, 16, 16]}),  # channels last
        ("test_efficientnet", {}),  # a class of its own for features
        ("mnasnet_small", {}),
        ("tf_mobilenetv3_small_minimal_100", {}),
        ("hardcorenas_a", {}),
        ("hrnet_w18_small", {}),
        ("selecsls42", {}),  # lists pass between modules
        ("cspnext_tiny", {"channels": [8, 8, 16, 16]}),  # asked for intermediates
        ("xception41", {}),  # hooks
        (ONE_SIZE[0], {**ONE_SIZE[1], "img_size": [64, 96]}),
    ],
)
def test_models_that_timm_asks_for_features_in_one_way_or_another(
    name: str, kwargs: dict[str, Any]
) -> None:
    with torch.device("meta"):
        backbone = built(name, **kwargs).train()
        maps = backbone(torch.empty(2, 3, 64, 96))
    assert backbone.strides == list(STRIDES)
    levels = zip(backbone.channels, STRIDES, strict=True)
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 96 // s) for c, s in levels]
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["test_convnext", "cspnext_tiny"])
def test_weights_have_the_names_of_timm(name: str) -> None:
    with torch.device("meta"):
        names = timm.create_model(name, features_only=True).state_dict().keys()
        assert built(name).state_dict().keys() == names


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("vit_tiny_patch16_224", {}, r"strides \[16, 16, 16\], but none at \[4, 8, 32\]; choose"),
        (
            "levit_128s",
            {},
            r"strides \[16, 32, 64\], but none at \[4, 8\]; choose .*convnext_tiny$",
        ),
        ("swin_tiny_patch4_window7_224", {}, "takes no images of 96 x 160 .*backbone.layout=swin"),
        (*ONE_SIZE, r"takes no images of 96 x 160 .*kwargs.img_size=\[height,width\]"),
        ("inception_v3", {}, r"gives of an image of 96 x 160 a map of \(192, 20, 36\) at stride 4"),
        ("inception_v3", {"aux_logits": True}, "cannot be built so"),
    ],
)
def test_others_are_refused_in_a_sentence(name: str, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"model\.backbone.*{name}.*{said}"):
        built(name, **kwargs)


def test_a_model_of_one_map_is_sent_to_the_layouts_of_one_map() -> None:
    flat = "|".join(layout for layout in layouts() if not is_pyramid(layout))
    with pytest.raises(UserError, match=f"for a ViT model.backbone.layout={flat}" if flat else ""):
        built("vit_tiny_patch16_224")


def test_an_image_of_another_size_than_the_model_was_built_for_is_refused() -> None:
    backbone = built(ONE_SIZE[0], **ONE_SIZE[1], img_size=64)
    with pytest.raises(UserError, match=r"kwargs.img_size=\[64, 64\]: .* images of 64 x 96"):
        backbone(torch.randn(1, 3, 64, 96))

"""What every file of segsweep/model/backbones promises: a new file is tested too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.model.backbones import STRIDES, layouts
from segsweep.model.family import Backbone
from segsweep.model.maskdino import MaskDINO
from tests import words

assert words  # it lets the package find the files of a folder
HEIGHT, WIDTH = 64, 96


def small(layout: str, **options: Any) -> Backbone:
    example = import_module(f"segsweep.model.backbones.{layout}").SMALL
    return Backbone(example["name"], layout, dict(example["kwargs"]), **options)


@pytest.fixture(params=layouts())
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def built(layout: str) -> tuple[nn.Module, list[int]]:
    torch.manual_seed(0)
    return small(layout).build()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def test_maps_have_the_strides_and_channels(built: tuple[nn.Module, list[int]]) -> None:
    backbone, channels = built
    shapes = [tuple(m.shape) for m in backbone.eval()(images())]
    levels = zip(channels, STRIDES, strict=True)
    assert shapes == [(2, c, HEIGHT // stride, WIDTH // stride) for c, stride in levels]


def test_maps_are_a_function_of_each_image(built: tuple[nn.Module, list[int]]) -> None:
    backbone = built[0].eval()
    with torch.no_grad():
        both, first = backbone(images()), backbone(images()[:1])
    for together, alone in zip(both, first, strict=True):
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
        assert together[0].ne(together[1]).any()


def test_every_parameter_learns(built: tuple[nn.Module, list[int]]) -> None:
    backbone = built[0].train()
    torch.stack([m.square().mean() for m in backbone(images())]).sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_drop_path_and_the_meta_device_are_taken(layout: str) -> None:
    with torch.device("meta"):
        backbone, channels = small(layout, drop_path=0.1).build()
    assert len(channels) == len(STRIDES)
    assert all(parameter.is_meta for parameter in backbone.parameters())


def test_a_model_stands_on_it(layout: str) -> None:
    family = MaskDINO(backbone=small(layout), hidden=32, queries=5, encoder_layers=1,
                      decoder_layers=1, mask_dim=32)  # fmt: skip
    model = family.build(Subject(["thing"])).eval().requires_grad_(False)
    assert model(images()).mask_features.shape == (2, 32, HEIGHT // 4, WIDTH // 4)
    official = family.official(model)
    assert len(official) >= len(list(model.parameters()))


def test_a_layout_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"layout=swim: .* did you mean 'swin'\? \(choices: .*timm"):
        Backbone(layout="swim")

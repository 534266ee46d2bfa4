"""What every file of segsweep/model/backbones promises: a new file is tested too."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.model import backbones
from segsweep.model.backbones import STRIDES, is_pyramid, layouts
from segsweep.model.backbones.base import Backbone, at_rest, each_alone, passed
from segsweep.model.family import BackboneConfig
from segsweep.model.maskdino import MaskDINO
from tests import words

assert words  # it lets the package find the files of a folder
HEIGHT, WIDTH = 64, 96


def small(layout: str, **options: Any) -> BackboneConfig:
    example = import_module(f"segsweep.model.backbones.{layout}").SMALL
    return BackboneConfig(example["name"], layout, dict(example["kwargs"]), **options)


@pytest.fixture(params=layouts())
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def built(layout: str) -> Backbone:
    torch.manual_seed(0)
    return small(layout).build()


@pytest.fixture
def stepping(built: Backbone) -> Backbone:
    """One that does something."""
    return built if built.steps() else pytest.skip("no steps")


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def test_maps_have_the_strides_and_channels(built: Backbone) -> None:
    shapes = [tuple(m.shape) for m in built.eval()(images())]
    levels = zip(built.channels, built.strides, strict=True)
    assert shapes == [(2, c, HEIGHT // stride, WIDTH // stride) for c, stride in levels]


def test_the_file_says_whether_the_maps_are_a_pyramid(layout: str, built: Backbone) -> None:
    assert (built.strides == list(STRIDES)) == is_pyramid(layout)


def test_maps_are_a_function_of_each_image(built: Backbone) -> None:
    with torch.no_grad():
        both, first = built.eval()(images()), built(images()[:1])
    for pair, alone in zip(both, first, strict=True):
        torch.testing.assert_close(pair[:1], alone, atol=1e-5, rtol=1e-5)
        assert pair[0].ne(pair[1]).any()


@torch.no_grad()
def test_any_number_of_steps_may_be_run_image_by_image(stepping: Backbone) -> None:
    """States are batch first, hold no more than is needed, and are not changed by later steps."""
    steps, whole = stepping.eval().steps(), stepping(images())
    state = {}
    for done in range(len(steps) + 1):
        state = each_alone(steps[:done], images())
        kept = {name: tensor.clone() for name, tensor in state.items()}
        state = passed(steps[done:], state)
        for a, b in zip(stepping.maps(state), whole, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        again = each_alone(steps[:done], images())
        assert all(torch.equal(again[name], kept[name]) for name in kept | again)
    assert sorted(state) == [str(i) for i in range(len(stepping.strides))]


def test_a_weight_is_used_in_steps_that_hold_it_only(stepping: Backbone) -> None:
    """What trains gets its gradient although the steps at rest keep no graph."""
    steps = stepping.requires_grad_(False).steps()
    assert at_rest(steps) == len(steps)
    first: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in stepping.named_parameters():
        parameter.requires_grad_(True)
        first.setdefault(at_rest(steps), []).append((name, parameter))
        parameter.requires_grad_(False)
    assert max(first) < len(steps), first[max(first)]
    for resting, parameters in first.items():
        for _, parameter in parameters:
            parameter.requires_grad_(True)
        with torch.no_grad():
            state = passed(steps[:resting], {"images": images(1)})
        maps = stepping.maps(passed(steps[resting:], state))
        torch.stack([m.square().sum() for m in maps]).sum().backward()
        assert [name for name, parameter in parameters if parameter.grad is None] == []
        stepping.requires_grad_(False)


def test_every_parameter_learns(stepping: Backbone) -> None:
    torch.stack([m.square().mean() for m in stepping.train()(images())]).sum().backward()
    assert [name for name, p in stepping.named_parameters() if p.grad is None] == []


def test_drop_path_and_the_meta_device_are_taken(layout: str) -> None:
    with torch.device("meta"):
        backbone = small(layout, drop_path=0.1).build()
    assert len(backbone.channels) == len(backbone.strides)
    assert all(parameter.is_meta for parameter in backbone.parameters())


def test_a_model_stands_on_it(layout: str) -> None:
    if not is_pyramid(layout):
        pytest.skip("Mask DINO wants a pyramid")
    family = MaskDINO(backbone=small(layout), hidden=32, queries=5, encoder_layers=1,
                      decoder_layers=1, mask_dim=32)  # fmt: skip
    model = family.build(Subject(["thing"])).eval().requires_grad_(False)
    assert model(images()).mask_features.shape == (2, 32, HEIGHT // 4, WIDTH // 4)
    official = family.official(model)
    assert len(official) >= len(list(model.parameters()))


def test_a_layout_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"layout=swim: .* did you mean 'swin'\? \(choices: .*timm"):
        BackboneConfig(layout="swim")


@pytest.mark.parametrize("model", ["maskdino_r50", "seem_focall"])
def test_maps_that_a_model_cannot_read_are_refused_while_composing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat.py").write_text("PYRAMID = False\nraise ImportError\ndef build(): ...\n")
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    said = (
        rf"model\.backbone\.layout=flat .* model={model} reads maps at strides 4, 8, 16, 32; "
        r"choose model\.backbone\.layout=focal\|focal_dw\|.*\|timm"
    )
    with pytest.raises(UserError, match=said):
        compose([f"model={model}", "model.backbone.layout=flat", "model.weights=null"])

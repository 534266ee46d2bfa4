"""What lies before the first weight or place of a method costs nothing and draws nothing."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from segsweep.model.backbones import layouts
from segsweep.model.backbones.base import at_rest, passed
from segsweep.model.family import BackboneConfig
from segsweep.model.layers.seam import seams
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.peft.layers import Filling
from segsweep.peft.lora import LoRA
from segsweep.peft.places import Places
from segsweep.peft.select import Select
from segsweep.peft.sites import named_weights
from segsweep.run.feature_store import Memory
from segsweep.run.features import FeatureCache


@pytest.fixture(params=layouts())
def model(request: pytest.FixtureRequest) -> Segmenter:
    """A model on a small backbone that drops paths."""
    example = import_module(f"segsweep.model.backbones.{request.param}").SMALL
    torch.manual_seed(0)
    config = BackboneConfig(example["name"], request.param, dict(example["kwargs"]), drop_path=0.5)
    return Segmenter(config.build(), nn.Module(), nn.Module())  # type: ignore[arg-type]


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def late(model: Segmenter, ending: str = ".weight") -> list[str]:
    """The last quarter of the weights whose names end so."""
    names = [name for name in named_weights(model) if name.endswith(ending)]
    return names[-max(1, len(names) // 4) :] if names else pytest.skip(f"no *{ending}")


def saved(model: Segmenter) -> int:
    """Bytes that a training step keeps between forward and backward pass of the backbone."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train().features(images())
    return sum(kept)


def gradients(model: Segmenter) -> dict[str, Tensor]:
    """Gradients of one training step, and its maps."""
    model.zero_grad()
    torch.manual_seed(2)
    maps = model.train().features(images())
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    learnt = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return learnt | {str(i): m for i, m in enumerate(maps)}


def test_lora_in_the_last_blocks_keeps_less_than_in_all(model: Segmenter) -> None:
    everywhere = copy.deepcopy(model)
    apply(model, LoRA(train=[], targets=late(model, "qkv.weight")), {})
    apply(everywhere, LoRA(train=[], targets=["backbone.*qkv.weight"]), {})
    assert 0 < saved(model) < 0.7 * saved(everywhere)
    steps = model.requires_grad_(False).backbone.steps()
    assert at_rest(steps) < len(steps)  # an edit acts, whether or not it trains


def test_the_steps_before_the_first_trained_weight_keep_nothing_and_change_nothing(
    model: Segmenter,
) -> None:
    whole = saved(model.requires_grad_(True))
    apply(model, Select(train=late(model)), {})
    steps = model.train().backbone.steps()
    assert (0 < at_rest(steps) < len(steps)) == (len(steps) > 1)
    assert 0 < saved(model) < 0.7 * whole
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    drawn = torch.get_rng_state()
    with torch.no_grad():
        passed(steps[: at_rest(steps)], {"images": images()})
    assert torch.get_rng_state().equal(drawn)
    assert all(buffer.equal(buffers[name]) for name, buffer in model.named_buffers())


def test_a_filled_place_acts_even_without_weights(model: Segmenter) -> None:
    model.requires_grad_(False)
    steps = model.backbone.steps()
    assert at_rest(steps) == len(steps)
    place = [name for name in seams(model) if name.endswith(".after_mlp")][-1:]
    if not place:
        pytest.skip("no places")
    Places(model, {}).fill(place, lambda width: Filling(lambda y, stream: 2 * y))
    filled = [i for i, step in enumerate(steps) if any(s.filling is not None for m in step.modules
              for s in seams(m).values())]  # fmt: skip
    assert [at_rest(steps)] == filled


def test_what_is_kept_gives_the_same_training_to_the_bit(model: Segmenter) -> None:
    apply(model, Select(train=late(model)), {})
    plain = gradients(model)
    model.feature_cache = FeatureCache("", Memory(None), entries=2, silent=True)
    for _ in range(2):
        again = gradients(model)
        assert again.keys() == plain.keys()
        assert all(again[name].equal(tensor) for name, tensor in plain.items())
    assert len(Memory.kept) == (2 if at_rest(model.backbone.steps()) else 0)
    Memory.kept.clear()

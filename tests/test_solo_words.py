"""SOLO as a family: its words, what it refuses, and that it learns."""

from __future__ import annotations

import pytest
import torch

from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.data.loader import TrainLoader
from segsweep.loss.solo import NOTHING, Cells, assigned
from segsweep.model.family import BackboneConfig
from segsweep.model.heads.cell_instances import CellReader
from segsweep.model.pyramid import NeckConfig
from segsweep.model.solo import SOLO
from tests.words import compose, files

WORDS = [word for word in files("model") if word.endswith("_solo")]
VIT = {"name": "VisionTransformer", "layout": "vit"}


def test_every_word_has_a_grid_for_each_level():
    for word in WORDS:
        config = compose([f"model={word}", "data=digits"])
        assert config.hparams.name == ("miniature" if "_tiny_" in word else "vfm")
        family = config.model
        assert family.level_count() == len(family.grids) == 5, word


@pytest.mark.parametrize("word", ["vit_tiny_solo", "swin_tiny_solo"])
def test_levels_of_one_map_and_of_a_pyramid(word):
    family = compose([f"model={word}", "data=digits"]).model
    with torch.device("meta"):
        model = family.build(Subject(["a", "b"]))
    finest = 4 if word.startswith("vit") else 8  # twice the neck's
    assert model.sem_seg_head.strides == [finest * factor for factor in (1, 1, 2, 4, 4)]
    assert set(family.class_tensors) < set(model.state_dict())
    official = family.official(model)
    assert "mask_head.conv_mask_list.0.weight" in official
    assert set(family.named(official, model.backbone)) == set(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grids": [4, 3, 2, 1]}, "are 4 levels, model.scale_ranges=.* 5; give one grid"),
        ({"grids": [4, 3, 2], "scale_ranges": [[1, 8]] * 3}, "are 3 levels, the neck gives 5"),
        ({"neck": NeckConfig(kwargs={"top": "none"})}, "5 levels, the neck gives 4"),
        ({"scale_ranges": [[1, 8]] * 4 + [[8, 1]]}, "the least and the largest"),
        ({"groups": 7}, "model.channels=256 must be a multiple of model.groups=7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_torch_is_needed(changes, told):
    with pytest.raises(UserError, match=told):
        SOLO(name="x", backbone=BackboneConfig(**VIT), **changes)


def test_a_neck_that_does_not_say_its_levels_is_judged_when_it_is_built():
    backbone = BackboneConfig("SwinTransformer", "swin", {"embed_dim": 8, "depths": [1] * 4,
                              "num_heads": [1] * 4, "window_size": 4, "img_size": 64})  # fmt: skip
    family = SOLO(name="x", backbone=backbone, neck=NeckConfig("none"))
    with torch.device("meta"), pytest.raises(UserError, match="5 levels, the neck gives 4"):
        family.build(Subject(["a"]))
    family.grids, family.scale_ranges = [8, 4, 2, 1], [[1, 16]] * 4
    with torch.device("meta"), pytest.raises(UserError, match=r"\[8, 16, 32, 64\] channels"):
        family.build(Subject(["a"]))


def test_the_last_object_has_a_cell_and_one_without_pixels_has_none():
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:2, 8:16, 8:16] = True
    (owners,) = assigned(masks, torch.tensor([[8.0, 8.0]] * 3), [8], [[8, 8]], 0.2)
    assert owners.unique().tolist() == [NOTHING, 1]
    (owners,) = assigned(masks, torch.tensor([[8.0, 8.0]] * 3), [8], [[9, 20]], 0.2)
    assert owners.unique().tolist() == [NOTHING]


def test_masks_of_no_more_pixels_than_their_stride_are_no_objects():
    corner = torch.tensor([[1.0, -1], [-1, -1]])  # 2 x 2 of 4 x 4 pixels
    output = Cells([torch.full((1, 1, 1, 1), 5.0)], [corner[None, None]], [torch.tensor([[9.0]])],
                   [torch.zeros(1)])  # fmt: skip
    view = ((4, 4),) * 3
    for stride, boxes in ((4, []), (3, [[0, 0, 2, 2]])):
        found = CellReader().read(output, [stride], 0, view, 0.0)
        assert found.boxes.tolist() == boxes


def test_it_learns():
    config = compose(["model=vit_tiny_solo", "data=digits", "data.train=4", "peft=full_ft"])
    torch.manual_seed(0)
    model = config.model.build(config.data.subject()).train()
    batch = next(TrainLoader(config.data, 2, 0).batches(0))
    optimizer, losses = torch.optim.AdamW(model.parameters(), 2e-3), []
    for _ in range(8):
        losses.append(model.loss(model(batch.images, batch.targets), batch.targets)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_classes_drawn_anew_are_a_function_of_the_seed_and_rare():
    family = compose(["model=vit_tiny_solo", "data=digits"]).model
    model = family.build(Subject(["a", "b"]))
    weights = []
    for seed in (1, 1, 2):
        family.draw_classes(model, seed)
        weights.append({name: model.state_dict()[name].clone() for name in family.class_tensors})
    torch.testing.assert_close(weights[0], weights[1])
    (weight, bias), (other, _) = weights[1].values(), weights[2].values()
    assert not weight.equal(other)
    assert weight.std().item() == pytest.approx(0.01, rel=0.2)
    torch.testing.assert_close(bias.sigmoid(), torch.full((2,), 0.01))

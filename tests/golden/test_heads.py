"""The head gives the official outputs from the official features and weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segsweep.loss.outputs import Output, PredictionSets
from segsweep.model.layers.position import proposals

pytestmark = pytest.mark.golden


def masks(predictions: PredictionSets, output: Output, s: int = -1) -> Tensor:
    return torch.einsum("bqc,bchw->bqhw", predictions.embeddings[s], output.mask_features)


def check_outputs(golden, output: Output, expected: dict[str, Tensor], prefix: str) -> int:
    """Compare every tensor under the prefix; return how many there were."""
    names = [name for name in expected if name.startswith(prefix)]
    for name in names:
        *place, what = name.removeprefix(prefix).split("/")
        part, s = output.matching, -1
        if place[:1] == ["interm_outputs"]:
            part = output.interm
        elif place[:1] == ["dn"]:
            part, place = output.denoising, place[1:]
        assert part is not None
        if place[:1] == ["aux_outputs"]:
            s = int(place[1])
        if what.startswith("pred_masks"):
            step = int(what.partition("_ds")[2] or 1)  # every so many rows and columns
            found = masks(part, output, s)[..., ::step, ::step]
            golden.check(found, expected[name], "mask logits")
        else:
            golden.check(getattr(part, what.removeprefix("pred_"))[s], expected[name])
    return len(names)


@torch.no_grad()
@pytest.mark.parametrize("box_init", ["mask2box", "bitmask", "no"])
def test_evaluation(golden, features, box_init):
    output = golden.head(box_init=box_init)(features)
    expected = golden.arrays("head_eval")
    assert check_outputs(golden, output, expected, f"eval_{box_init}/") >= 4


@torch.no_grad()
def test_pixel_decoder(golden, features):
    pixel = golden.head().pixel_decoder(features)
    expected = golden.arrays("head_eval")
    golden.check(pixel.mask_features, expected["pixel/mask_features"])
    golden.check(pixel.levels[0], expected["pixel/transformer_encoder_features"])
    for i, level in enumerate(pixel.levels):
        golden.check(level, expected[f"pixel/multi_scale_features/{i}"])


@torch.no_grad()
def test_selection(golden, features):
    head, expected = golden.head(), golden.arrays("head_eval")
    predictor, levels = head.predictor, head.pixel_decoder(features).levels[::-1]
    shapes = [tuple(level.shape[-2:]) for level in levels]
    assert shapes == [tuple(s) for s in expected["two_stage/spatial_shapes"].tolist()]
    boxes, usable = proposals(shapes, torch.device("cpu"))
    for image in expected["two_stage/output_proposals_unsigmoid"]:
        golden.check(boxes, image)
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
    scores = predictor.scores(memory.masked_fill(~usable[:, None], 0))
    golden.check(scores, expected["two_stage/max_class_logit"])
    chosen = scores.topk(predictor.queries, dim=1).indices
    assert chosen.equal(expected["two_stage/topk_indices"])


@torch.no_grad()
def test_training_mode_without_denoising(golden, features):
    output = golden.head().train()(features)
    expected = golden.arrays("head_eval")
    assert check_outputs(golden, output, expected, "train_nodn/") >= 1


@torch.no_grad()
def test_five_levels(golden, features):
    from segsweep.model.family import MAPS

    head = golden.head("level5_model", box_init="bitmask", levels=MAPS)
    expected = golden.arrays("level5_eval")
    pixel = head.pixel_decoder(features)
    golden.check(pixel.mask_features, expected["pixel/mask_features"])
    for i, level in enumerate(pixel.levels):
        golden.check(level, expected[f"pixel/multi_scale_features/{i}"])
    assert check_outputs(golden, head(features), expected, "eval_bitmask/") >= 4

"""Single modules and functions give the official numbers."""

from __future__ import annotations

import re

import pytest
import torch

from segsweep.loss.boxes import bitmask, generalized_iou, invsig, iou, mask2box, xyxy_to_cxcywh
from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.layers.position import (
    box_position,
    cell_centres,
    flat,
    map_position,
    padded_position,
    padded_references,
    proposals,
)

pytestmark = pytest.mark.golden
CPU = torch.device("cpu")


@pytest.fixture
def modules(golden):
    return golden.arrays("modules")


def shapes_of(tensor) -> list[tuple[int, int]]:
    return [(h, w) for h, w in tensor.tolist()]


def attention(golden, modules) -> DeformableAttention:
    levels = len(modules["msda/in/spatial_shapes"])
    channels = modules["msda/in/query"].shape[-1]
    msda = DeformableAttention(channels, golden.config["heads"], levels)
    msda.load_state_dict(golden.state("modules", "msda/sd/"))
    return msda


@torch.no_grad()
@pytest.mark.parametrize("reference", ["ref2", "ref4"])
@pytest.mark.parametrize("masked", [False, True])
def test_deformable_attention(golden, modules, reference, masked):
    out = attention(golden, modules)(
        modules["msda/in/query"],
        modules[f"msda/in/{reference}"],
        modules["msda/in/value"],
        shapes_of(modules["msda/in/spatial_shapes"]),
        modules["msda/in/padding_mask"] if masked else None,
    )
    golden.check(out, modules[f"msda/out/{reference}_{'mask' if masked else 'nomask'}"])


def test_deformable_attention_starts_in_all_directions(golden, modules):
    msda = attention(golden, modules)
    msda.reset_parameters()
    golden.check(msda.sampling_offsets.bias, modules["msda/init/sampling_offsets.bias"])
    assert not msda.sampling_offsets.weight.any()
    assert not msda.attention_weights.weight.any()
    assert not msda.attention_weights.bias.any()


def test_map_position(golden, modules):
    names = [name for name in modules if re.fullmatch(r"pe_sine/\d+x\d+", name)]
    assert names
    for name in names:
        _, channels, height, width = modules[name].shape
        code = map_position((height, width), channels, CPU)
        golden.check(code.T.reshape(1, channels, height, width), modules[name])
        padding = torch.zeros(1, height, width, dtype=torch.bool)
        golden.check(padded_position(padding, channels)[0], code)


def test_position_in_padded_maps(golden, modules):
    padding, expected = modules["pe_sine/in_mask"], modules["pe_sine/masked"]
    code = padded_position(padding, expected.shape[1])
    golden.check(code.transpose(1, 2).reshape(expected.shape), expected)


@pytest.mark.parametrize("case", ["nfeat128_official", "tiny", "2d_nfeat128_official"])
def test_box_position(golden, modules, case):
    boxes, expected = modules["sine_query/in"], modules[f"sine_query/out_{case}"]
    boxes = boxes[..., :2] if case.startswith("2d") else boxes
    golden.check(box_position(boxes, expected.shape[-1] // boxes.shape[-1]), expected)


def test_proposals(golden, modules):
    shapes = shapes_of(modules["proposals/in/spatial_shapes"])
    masks = modules["proposals/in/padding_mask"].split([h * w for h, w in shapes], dim=1)
    padding = [mask.unflatten(1, shape) for mask, shape in zip(masks, shapes, strict=True)]
    boxes, usable = proposals(shapes, CPU, padding)
    golden.check(boxes, modules["proposals/out/proposals_unsigmoid"])
    memory = modules["proposals/in/memory_first8"].masked_fill(~usable[..., None], 0)
    golden.check(memory, modules["proposals/out/memory_first8"])
    whole = ~flat(padding).any(1)
    unpadded, _ = proposals(shapes, CPU)
    golden.check(unpadded.expand_as(boxes[whole]), boxes[whole])


def test_reference_points(golden, modules):
    """Where the valid ratios are 1, these are the cell centres on every level."""
    ratios, expected = modules["enc_ref/in/valid_ratios"], modules["enc_ref/out"]
    shapes = shapes_of(modules["enc_ref/in/spatial_shapes"])
    size = torch.tensor([(w, h) for h, w in shapes])
    golden.check(padded_references(shapes, ratios * size), expected)
    whole = (ratios == 1).flatten(1).all(1)
    centres = cell_centres(shapes, CPU)[None, :, None]
    golden.check(centres.expand_as(expected[whole]), expected[whole])


@torch.no_grad()
def test_padded_pixel_decoder(golden, features):
    masks = golden.state("modules", "pixel_masked/in/mask/")
    expected = golden.state("modules", "pixel_masked/out/")
    pixel = golden.head().pixel_decoder(features, [masks[str(i)] for i in range(len(masks))])
    golden.check(pixel.mask_features, expected.pop("mask_features"))
    assert len(pixel.levels) == len(expected)
    for i, level in enumerate(pixel.levels):
        golden.check(level, expected[f"multi_scale_features/{i}"])


def test_inverse_sigmoid(golden, modules):
    golden.check(invsig(modules["inverse_sigmoid/in"]), modules["inverse_sigmoid/out"])


@pytest.mark.parametrize("rule", [mask2box, bitmask])
def test_boxes_of_masks(golden, modules, rule):
    masks = modules["mask_boxes/in"] > 0
    height, width = masks.shape[-2:]
    boxes = rule(masks)
    assert boxes.equal(modules[f"mask_boxes/{rule.__name__}_xyxy"])
    anchors = invsig(xyxy_to_cxcywh(boxes) / torch.tensor([width, height] * 2))
    golden.check(anchors, modules[f"mask_boxes/{rule.__name__}_refpoint_unsigmoid"])


def test_overlap(golden, modules):
    a, b = modules["giou/in1"][:, None], modules["giou/in2"][None]
    golden.check(generalized_iou(a, b), modules["giou/out"])
    golden.check(iou(a, b)[0], modules["giou/iou"])


@torch.no_grad()
def test_encoder_layer(golden, modules):
    layer = golden.head().pixel_decoder.transformer.encoder.layers[0]
    parts = [modules[f"enc_layer0/in/{part}"] for part in ("src", "pos", "reference_points")]
    shapes = shapes_of(modules["enc_layer0/in/spatial_shapes"])
    golden.check(layer(*parts, shapes), modules["enc_layer0/out"])


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_decoder_layer(golden, modules, masked):
    layer = golden.head().predictor.decoder.layers[0]
    names = ("tgt", "query_pos", "reference_points")
    parts = [modules[f"dec_layer0/in/{name}"].transpose(0, 1) for name in names]
    memory = modules["enc_layer0/in/src"]
    shapes = shapes_of(modules["enc_layer0/in/spatial_shapes"])
    blocked = modules["dec_layer0/in/self_attn_mask"] if masked else None
    out = layer(*parts, memory, shapes, blocked).transpose(0, 1)
    golden.check(out, modules[f"dec_layer0/out_{'mask' if masked else 'nomask'}"])

"""Pixel decoder, predictor and their parts give the released program's outputs."""

from __future__ import annotations

import re

import pytest
import torch

from segsweep.model.heads.masked_decoder import resized, unseen
from segsweep.model.layers.position import map_position
from segsweep.model.necks.pixel_decoder import PixelFeatures

from .passes import RECORDED, Pass

pytestmark = pytest.mark.golden


def sizes(arrays, prefix) -> dict[str, tuple[int, int]]:
    """Heights and widths of the arrays called prefix + HxW."""
    found = {name: re.fullmatch(rf"{prefix}(\d+)x(\d+)", name) for name in arrays}
    shapes = {name: (int(m[1]), int(m[2])) for name, m in found.items() if m}
    assert shapes
    return shapes


def test_position_encoding(golden):
    arrays = golden.arrays("position_encoding")
    channels = 2 * int(arrays["num_pos_feats"])
    for name, shape in sizes(arrays, "hidden_").items():
        code = map_position(shape, channels, torch.device("cpu"))
        golden.check(code.T.unflatten(1, shape), arrays[name])


def test_pixel_decoder(golden):
    done = Pass(golden.head(), golden.features())
    expected = {k: v for k, v in golden.arrays("pixel_decoder").items() if k[:3] != "res"}
    assert len(expected) >= 5 + golden.config["pixel_decoder"]["enc_layers"]
    for name, value in expected.items():
        golden.check(done[name], value)


def test_decoder(golden):
    arrays = golden.arrays("decoder")
    levels = [arrays[name] for name in sorted(arrays) if name.startswith("multi_scale")]
    head = golden.head(arrays["text_embeddings"])
    done = Pass(head, PixelFeatures(arrays["mask_features"], levels))
    expected = {k: v for k, v in arrays.items() if re.fullmatch(RECORDED, k)}
    assert expected.keys() | {"text_embeddings"} == arrays.keys()
    for name, value in expected.items():
        golden.check(done[name], value)  # masks of the attention are bool: exact
    assert len(done.output.matching.logits) == 1 + golden.config["predictor"]["decoder_layers"]


@torch.no_grad()
def test_prediction_head(golden):
    arrays, predictor = golden.arrays("prediction_head"), golden.head().predictor
    x = arrays["decoder_output"].transpose(0, 1)
    found = predictor.heads(x, arrays["text_embeddings"])
    golden.check(found.logits, arrays["pred_logits"])
    golden.check(found.embeddings, arrays["mask_emb"])
    masks = torch.einsum("bqc,bchw->bqhw", found.embeddings, arrays["mask_features"])
    golden.check(masks, arrays["pred_masks"])
    golden.check(predictor.decoder_norm(x) @ predictor.class_embed, arrays["class_emb"])


def test_attention_mask(golden):
    """Recorded are masks themselves: features whose embeddings are unit vectors."""
    arrays = golden.arrays("attention_mask")
    logits, heads = arrays["mask_logits"], int(arrays["num_heads"])
    unit = torch.eye(logits.shape[1]).expand(len(logits), -1, -1)
    for name, shape in sizes(arrays, "interpolated_").items():
        size = name.removeprefix("interpolated_")
        small = resized(logits, shape)
        golden.check(small, arrays[name])
        for fixed, mask in (
            ("before", (small < 0).flatten(2)[:, None]),
            ("after", unseen(unit, small)),
        ):
            every_head = mask.expand(-1, heads, -1, -1).flatten(0, 1)
            assert every_head.equal(arrays[f"mask_{fixed}_fix_{size}"])


@torch.no_grad()
def test_similarity(golden):
    arrays, encoder = golden.arrays("similarity"), golden.language()
    text = arrays["text_embeddings"]
    scales = {name: name.removeprefix("logits_scale_") for name in arrays if "s_scale_" in name}
    assert scales
    for name, scale in scales.items():
        encoder.logit_scale.fill_(float(scale))
        golden.check(encoder.similarity(arrays["v_emb"], text), arrays[name])
    encoder.logit_scale.copy_(arrays["logit_scale_for_class_logits"])
    projected = arrays["decoder_output_normed"] @ arrays["class_embed"]
    golden.check(encoder.similarity(projected, text), arrays["class_logits"])

"""Attention and SEEM's head: what holds for all sizes and weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segsweep.model.heads.masked_decoder import resized, unseen
from segsweep.model.heads.query import QueryHead
from segsweep.model.layers.attention import Attention
from segsweep.model.seem import SEEM, Text

CHANNELS = [8, 8, 16, 16]
small = st.integers(1, 5)
examples = settings(max_examples=25, deadline=None)


@examples
@given(small, small, small, st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(), st.data())
def test_attention_is_torchs(batch, queries, cells, heads, alone, masked, data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    ours, theirs = Attention(8, heads), nn.MultiheadAttention(8, heads, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    query = torch.randn(batch, queries, 8)
    key = query if alone else torch.randn(batch, cells, 8)
    value = torch.randn(key.shape)
    blocked = torch.rand(batch, 1, queries, key.shape[1]) < 0.5 if masked else None
    if blocked is not None:
        blocked &= ~blocked.all(-1, keepdim=True)
    mask = None if blocked is None else blocked.expand(-1, heads, -1, -1).flatten(0, 1)
    expected = theirs(query, key, value, attn_mask=mask, need_weights=False)[0]
    found = ours(query, key, value, blocked)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(
        ours.in_proj_weight.grad, theirs.in_proj_weight.grad, rtol=1e-4, atol=1e-4
    )


@examples
@given(small, small, small, small, st.integers(0, 99))
def test_a_query_sees_its_mask_and_without_one_everything(height, width, tall, wide, seed):
    torch.manual_seed(seed)
    embeddings = torch.randn(2, 6, 4).requires_grad_()
    features = torch.rand(2, 4, height, width).requires_grad_()
    embeddings.data[0, 0], embeddings.data[1, 1] = -1, 1
    logits = torch.einsum("bqc,bchw->bqhw", embeddings, features)
    logits = F.interpolate(logits, (tall, wide), mode="bilinear").flatten(2)
    assume(logits.abs().min() > 1e-5)  # else rounding decides
    seen = ~unseen(embeddings, resized(features, (tall, wide)))
    assert not seen.requires_grad
    assert seen.shape == (2, 1, 6, tall * wide)
    for logit, found in zip(logits.flatten(0, 1), seen.flatten(0, 2), strict=True):
        assert found.equal(logit > 0 if (logit > 0).any() else torch.ones_like(found))


def test_a_logit_of_zero_is_seen():
    assert unseen(torch.ones(1, 1, 1), torch.tensor([[[[0.0, -1, 2]]]])).tolist() == [
        [[[False, True, False]]]
    ]


def build(**changes) -> QueryHead:
    torch.manual_seed(0)
    dims = {"hidden": 32, "mask_dim": 16, "proj": 8, "queries": 7, "text": Text(20, 5, 8, 2, 1)}
    dims |= {f"{part}_heads": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_ffn": 16 for part in ("encoder", "decoder")}
    dims |= {"encoder_layers": 2, "decoder_layers": 4}
    ids = torch.randint(20, (3, 6, 5))
    return SEEM(**{**dims, **changes}).head(CHANNELS, ids, ids)


def features(height: int = 16, width: int = 24) -> list[Tensor]:
    """Maps at strides 4, 8, 16, 32, sizes rounded up."""
    torch.manual_seed(1)
    shapes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(4)]
    return [torch.randn(2, c, *shape) for c, shape in zip(CHANNELS, shapes, strict=True)]


def test_every_parameter_of_the_head_learns():
    head = build()
    output = head(features(), [])
    sets = output.matching
    masks = torch.einsum("sbqc,bchw->sbqhw", sets.embeddings, output.mask_features)
    (sets.logits.square().sum() + masks.square().sum()).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_the_head_draws_texts_in_training_only():
    head = build().requires_grad_(False)
    maps = features()
    once, again = (head(maps).matching.logits for _ in range(2))
    assert once.equal(again)
    drawn = [head(maps, []).matching for _ in range(5)]
    assert not all(sets.logits.equal(drawn[0].logits) for sets in drawn)
    assert all(sets.embeddings.equal(drawn[0].embeddings) for sets in drawn)


@torch.no_grad()
def test_images_of_a_batch_do_not_mix():
    head, maps = build(), features()
    both, second = head(maps).matching, head([level[1:] for level in maps]).matching
    torch.testing.assert_close(both.logits[:, 1:], second.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.embeddings[:, 1:], second.embeddings, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 24), (13, 21), (1, 1)])
def test_maps_of_any_size(size):
    head, maps = build(), features(*size)
    pixel = head.pixel_decoder(maps)
    assert pixel.mask_features.shape == (2, 16, *size)
    assert [level.shape[2:] for level in pixel.levels] == [m.shape[2:] for m in maps[:0:-1]]
    output = head.predictor(pixel)
    assert output.matching.logits.shape == (5, 2, 7, 3)
    assert output.matching.logits.isfinite().all()
    assert output.matching.boxes is None


@torch.no_grad()
def test_masks_are_decided_in_float32_under_autocast():
    predictor = build(mask_dim=64).predictor
    pixel = build(mask_dim=64).pixel_decoder(features(64, 96))
    seen: list[Tensor] = []
    first = predictor.transformer_cross_attention_layers[0].multihead_attn
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[3]))
    predictor(pixel)
    with torch.autocast("cpu", torch.bfloat16):
        output = predictor(pixel)
        assert build().pixel_decoder(features()).mask_features.dtype == torch.bfloat16
    assert seen[0].any()
    assert seen[0].equal(seen[1])
    assert output.matching.logits.isfinite().all()

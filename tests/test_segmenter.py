"""Instances of predictions made by hand: scores, boxes and masks without predicted boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segsweep.data.base import Subject
from segsweep.loss.boxes import bitmask
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.seem import SEEMCriterion
from segsweep.model.found import Instances
from segsweep.model.heads import frames
from segsweep.model.heads.frames import to_original
from segsweep.model.heads.query import reader

SIZE, PADDED = (48, 64), (64, 64)
SURE = 20.0  # logits in and, negative, out of a mask
CLASSES = 2


def predict(logits: Tensor, masks: Tensor, original: tuple[int, int], **options) -> Instances:
    """Instances of one image of (Q, K + 1) logits and (Q, h, w) mask logits."""
    subject = Subject(["class"] * CLASSES)
    read = reader(subject, SEEMCriterion(CLASSES).classify, resize="bicubic", **options).read
    unit = torch.eye(len(masks))[None, None]  # features are the masks themselves
    output = Output(PredictionSets(logits[None, None], None, unit), None, None, None, masks[None])
    return read(output, 0, (SIZE, PADDED, original), 0.0)


def rectangles(*corners: tuple[int, int, int, int]) -> Tensor:
    """Mask logits at stride 4 of rectangles given in pixels of the input."""
    masks = torch.full((len(corners), PADDED[0] // 4, PADDED[1] // 4), -SURE)
    for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
        mask[y1 // 4 : y2 // 4, x1 // 4 : x2 // 4] = SURE
    return masks


def test_boxes_are_those_of_the_masks():
    logits = torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    masks = rectangles((8, 16, 40, 32), (0, 0, 16, 24), (0, 0, 0, 0))
    found = predict(logits, masks, (96, 128), topk=3)
    p = logits.softmax(-1)
    # best first: class 1 of query 0, class 0 of query 1; the surest class has an empty mask
    assert found.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([p[0, 1], p[1, 0], 0]), atol=0.08, rtol=0)
    assert (found.scores <= torch.tensor([p[0, 1], p[1, 0], 0])).all()
    expected = torch.tensor([[16, 32, 80, 64], [0, 0, 32, 48], [0, 0, 0, 0]])
    assert (found.boxes - expected).abs().max() <= 1  # edges lie between two pixels
    assert not found.masks[2].any()
    for mask, (x1, y1, x2, y2) in zip(found.masks[:2], found.boxes.int().tolist(), strict=False):
        assert mask[y1:y2, x1:x2].any(0).all()
        assert mask.sum() == mask[y1:y2, x1:x2].sum()


def test_no_object_is_never_a_class():
    logits = torch.tensor([[0.0, 1.0, 9.0]])
    found = predict(logits, rectangles((8, 16, 40, 32)), (48, 64), topk=100)
    assert found.labels.tolist() == [1, 0]
    assert found.scores.sum() < 0.01


@pytest.mark.parametrize("original", [(20, 33), (96, 128)])
@pytest.mark.parametrize("few", [1, 4, 6])
def test_masks_made_a_few_at_a_time_are_those_of_all_at_once(monkeypatch, original, few):
    """To the last bit: pixels, scores and boxes, as from a tensor of all masks at full size."""
    torch.manual_seed(0)
    logits, masks = torch.randn(6, CLASSES + 1), torch.randn(6, 16, 16)
    monkeypatch.setattr(frames, "CELLS", few * max(64 * 64, original[0] * original[1]))
    found = predict(logits, masks, original)
    whole = to_original(masks[None], SIZE, PADDED, original, "bicubic")[0]
    pixels, best = whole > 0, logits.softmax(-1)[:, :CLASSES].flatten().topk(12)
    inside, query = pixels.float(), best.indices // CLASSES
    certain = (whole.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    scores, order = (best.values * certain[query]).sort(descending=True, stable=True)
    assert found.scores.equal(scores)
    assert found.labels.equal((best.indices % CLASSES)[order])
    assert found.masks.equal(pixels[query[order]])
    assert found.boxes.equal(bitmask(found.masks))


def test_what_is_no_number_is_no_mask_and_has_no_score():
    found = predict(torch.zeros(1, CLASSES + 1), torch.full((1, 16, 16), torch.nan), (48, 64))
    assert found.scores.isnan().all()
    assert not found.masks.any()


def test_bicubic_is_smoothed_where_the_image_shrinks():
    """A pattern finer than the new pixels becomes its mean."""
    stripes = torch.tensor([SURE, -SURE]).repeat(32).expand(1, 1, 64, 64)
    smooth, plain = (
        to_original(stripes, PADDED, PADDED, (7, 7), resize) for resize in ("bicubic", "bilinear")
    )
    assert smooth[..., 1:-1].abs().max() < 0.1 * SURE
    assert plain.abs().max() > 0.4 * SURE

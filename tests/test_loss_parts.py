"""Parts of the loss: boxes, points, costs, matching and denoising queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision import ops

from segsweep.base.errors import UserError
from segsweep.data.loader import Target
from segsweep.loss import boxes as bx
from segsweep.loss.denoising import denoising_queries
from segsweep.loss.matcher import assign, mask_costs, point_logits
from segsweep.loss.points import CHUNK, PointLosses, sample, uncertain_points

CLASSES, CHANNELS, QUERIES, SIDE = 3, 8, 6, 32
seeds = st.integers(0, 2**16)
quick = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_targets(counts: list[int], side: int = SIDE) -> list[Target]:
    """Targets whose masks are rectangles of at least a pixel."""
    made = []
    for n in counts:
        low = torch.randint(side // 2, (n, 2))
        high = low + torch.randint(1, side // 2, (n, 2))
        steps = torch.arange(side)
        x, y = ((steps >= low[:, i, None]) & (steps < high[:, i, None]) for i in (0, 1))
        corners = torch.cat([low, high], dim=1) / side
        masks = y[:, :, None] & x[:, None]
        made.append(Target(torch.randint(CLASSES, (n,)), bx.xyxy_to_cxcywh(corners), masks))
    return made


def corner_boxes(count: int) -> Tensor:
    low, size = torch.rand(count, 2), torch.rand(count, 2)
    return torch.cat([low, low + size], dim=1)


@quick
@given(seeds)
def test_overlap(seed):
    torch.manual_seed(seed)
    a, b = corner_boxes(5), corner_boxes(4)
    found = bx.generalized_iou(a[:, None], b)
    assert ((found >= -1) & (found <= 1)).all()
    torch.testing.assert_close(found, bx.generalized_iou(b[:, None], a).T)
    large = 100 * a, 100 * b  # where eps = 1e-6 does not count
    exact = ops.generalized_box_iou(*large)
    torch.testing.assert_close(bx.generalized_iou(large[0][:, None], large[1]), exact)


@quick
@given(seeds)
def test_forms_of_boxes(seed):
    torch.manual_seed(seed)
    corners = corner_boxes(7)
    torch.testing.assert_close(bx.cxcywh_to_xyxy(bx.xyxy_to_cxcywh(corners)), corners)
    inner = corners.clamp(1e-3, 1 - 1e-3)
    torch.testing.assert_close(bx.invsig(inner).sigmoid(), inner)
    assert bx.invsig(torch.tensor([-1.0, 0.0, 1.0, 2.0])).isfinite().all()


def test_boxes_of_masks():
    masks = torch.rand(6, 9, 11) > 0.9
    masks[2] = False
    filled = masks.flatten(1).any(1)
    found = bx.mask2box(masks)
    assert found[filled].equal(ops.masks_to_boxes(masks[filled]))
    assert found[2].tolist() == [1e8, 1e8, 0, 0]
    wider = found + torch.tensor([0, 0, 1, 1])
    assert bx.bitmask(masks)[filled].equal(wider[filled])
    assert bx.bitmask(masks)[2].tolist() == [0, 0, 0, 0]
    assert bx.bitmask(masks.view(2, 3, 9, 11)).view(6, 4).equal(bx.bitmask(masks))


@quick
@given(seeds, st.sampled_from([(8, 8), (5, 13), (1, 4)]))
def test_point_logits_are_those_of_dense_masks(seed, size):
    torch.manual_seed(seed)
    embeddings, features = torch.randn(QUERIES, CHANNELS), torch.randn(CHANNELS, *size)
    at = torch.rand(50, 2)
    dense = torch.einsum("qc,chw->qhw", embeddings, features)
    expected = sample(dense[None], at[None])[0]
    torch.testing.assert_close(
        point_logits(embeddings, features, at), expected, atol=1e-5, rtol=1e-5
    )


def test_sample_at_centres_and_outside():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    x, y = (torch.arange(4) + 0.5) / 4, (torch.arange(3) + 0.5) / 3
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(1, 12, 2)
    torch.testing.assert_close(sample(maps, centres).view(3, 4), maps[0, 0])
    corner = sample(maps + 1, torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
    torch.testing.assert_close(corner[0, 0], torch.tensor([1.0, 12.0]) / 4)


@quick
@given(seeds)
def test_mask_costs_are_those_of_single_masks(seed):
    torch.manual_seed(seed)
    logits, truth = 5 * torch.randn(QUERIES, 30), torch.rand(4, 30)
    bce, dice = mask_costs(logits, truth)
    entropy = nn.functional.binary_cross_entropy_with_logits
    for q in range(QUERIES):
        for n in range(4):
            torch.testing.assert_close(bce[q, n], entropy(logits[q], truth[n]))
            s = logits[q].sigmoid()
            expected = 1 - (2 * (s * truth[n]).sum() + 1) / (s.sum() + truth[n].sum() + 1)
            torch.testing.assert_close(dice[q, n], expected)


@pytest.mark.parametrize("masks", [1, CHUNK - 1, 2 * CHUNK + 3])
def test_uncertain_points(masks):
    logits, candidates, plain = (
        torch.randn(masks, 8, 8),
        torch.rand(masks, 60, 2),
        torch.rand(masks, 5, 2),
    )
    found = uncertain_points(logits, candidates, plain, 20)
    assert found.shape == (masks, 20, 2)
    assert found[:, 15:].equal(plain)
    margin = sample(logits[:, None], candidates)[:, 0].abs()
    chosen = sample(logits[:, None], found[:, :15])[:, 0].abs()
    torch.testing.assert_close(chosen.sort().values, margin.sort().values[:, :15])


@quick
@given(seeds, st.sampled_from([1.0, 100.0]))
def test_point_losses(seed, scale):
    torch.manual_seed(seed)
    logits = (scale * torch.randn(3, 4, 5, dtype=torch.double)).requires_grad_()
    points, truth = torch.rand(3, 7, 2).double(), torch.rand(3, 7).double()
    bce, dice = PointLosses.apply(logits, points, truth)
    found = sample(logits[:, None], points)[:, 0]
    expected = mask_costs(found, truth)
    for loss, cost in zip((bce, dice), expected, strict=True):
        torch.testing.assert_close(loss, cost.diagonal())
        weights = torch.randn(3)
        ours = torch.autograd.grad(loss @ weights.double(), logits, retain_graph=True)
        plain = torch.autograd.grad(cost.diagonal() @ weights.double(), logits, retain_graph=True)
        torch.testing.assert_close(ours, plain)


@quick
@given(seeds, st.integers(0, 8))
def test_assign(seed, count):
    torch.manual_seed(seed)
    costs = [torch.randn(2, QUERIES, n) for n in (count, 3)]
    pairs = assign(costs)
    assert pairs.counts == [min(count, QUERIES), 3]
    for s in range(2):
        parts = (row[s].split(pairs.counts) for row in (pairs.query, pairs.target))
        for cost, first, query, target in zip(costs, (0, count), *parts, strict=True):
            found = cost[s, query, target - first].sum().item()
            rows, columns = linear_sum_assignment(cost[s].numpy())
            assert found == pytest.approx(cost[s].numpy()[rows, columns].sum(), abs=1e-5)
            assert len(np.unique(query)) == len(query)


def test_costs_that_are_not_finite():
    costs = [torch.zeros(1, QUERIES, 2), torch.zeros(1, QUERIES, 1)]
    costs[1][0, 3, 0] = float("nan")
    with pytest.raises(UserError, match=r"image 1 .*lower hparams\.lr"):
        assign(costs)


def test_denoising_groups_do_not_see_each_other():
    targets = random_targets([2, 0, 3])
    queries = denoising_queries(targets, nn.Embedding(CLASSES, CHANNELS), QUERIES, CLASSES, 10)
    assert queries is not None
    assert (queries.groups, queries.pad) == (3, 9)
    assert [len(slots) for slots in queries.slots] == [6, 0, 9]
    blocked = queries.attention_mask
    assert blocked[queries.pad :, : queries.pad].all()
    assert not blocked[:, queries.pad :].any()
    group = torch.arange(queries.pad) // 3
    assert blocked[: queries.pad, : queries.pad].equal(group[:, None] != group)
    unused = torch.ones(3, queries.pad, dtype=torch.bool)
    for b, slots in enumerate(queries.slots):
        unused[b, slots] = False
    assert (queries.content[unused] == 0).all()
    assert (queries.anchors[unused] == 0).all()
    assert (queries.content[~unused] != 0).any(dim=1).all()


@pytest.mark.parametrize("counts", [[], [0, 0], [1, 11]])
def test_no_denoising(counts):
    label_enc = nn.Embedding(CLASSES, CHANNELS)
    assert denoising_queries(random_targets(counts), label_enc, QUERIES, CLASSES, 10) is None


def test_noise_stays_near_its_target():
    targets, label_enc = random_targets([4]), nn.Embedding(CLASSES, CHANNELS)
    queries = denoising_queries(targets, label_enc, QUERIES, CLASSES, 400, noise=0.2)
    assert queries is not None
    found, truth = queries.anchors[0].sigmoid(), targets[0].boxes.repeat(100, 1)
    reach = 0.2 * torch.cat([truth[:, 2:] / 2, truth[:, 2:]], dim=1)
    assert ((found - truth).abs() <= reach + 1e-4).all()
    same = (queries.content[0] == label_enc(targets[0].labels.repeat(100))).all(dim=1)
    # 0.1 of the labels are drawn anew, a third of these by chance the same
    assert 0.85 < same.float().mean() < 0.99

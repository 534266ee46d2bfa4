"""Class losses against plain code, query by query."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops

from segsweep.loss.classes import Focal, Softmax
from segsweep.loss.pairs import Pairs, Truth
from tests.test_loss_parts import CLASSES, QUERIES, quick, random_targets, seeds

SETS = 3
counts = st.lists(st.integers(0, QUERIES), min_size=1, max_size=3)


def case(seed: int, counts: list[int], channels: int) -> tuple[Tensor, Pairs, Truth, Tensor]:
    """Logits of sets, random pairs of all targets, and the class of every query, last = none."""
    torch.manual_seed(seed)
    truth = Truth.of(random_targets(counts))
    query = [torch.cat([torch.randperm(QUERIES)[:n] for n in counts]) for _ in range(SETS)]
    first = [sum(counts[:b]) for b in range(len(counts))]
    parts = list(zip(counts, first, strict=True))
    target = [torch.cat([f + torch.randperm(n) for n, f in parts]) for _ in range(SETS)]
    pairs = Pairs(torch.stack(query), torch.stack(target), counts)
    classes = torch.full((SETS, len(counts), QUERIES), CLASSES)
    for s in range(SETS):
        for image, q, t in zip(pairs.image, pairs.query[s], pairs.target[s], strict=True):
            classes[s, image, q] = truth.labels[t]
    return 3 * torch.randn(*classes.shape, channels), pairs, truth, classes


@quick
@given(seeds, counts, st.sampled_from([0.1, 1.0]))
def test_softmax_is_the_weighted_cross_entropy(seed, counts, no_object):
    logits, pairs, truth, classes = case(seed, counts, CLASSES + 1)
    found = Softmax(no_object).loss(logits, pairs, truth, torch.tensor(7.0))
    weight = torch.tensor([1.0] * CLASSES + [no_object])
    for one, labels, loss in zip(logits, classes, found, strict=True):
        torch.testing.assert_close(loss, F.cross_entropy(one.transpose(1, 2), labels, weight))


@quick
@given(seeds, counts)
def test_focal_is_the_sum_over_queries_and_classes(seed, counts):
    logits, pairs, truth, classes = case(seed, counts, CLASSES)
    found = Focal().loss(logits, pairs, truth, torch.tensor(4.0))
    there = F.one_hot(classes, CLASSES + 1)[..., :-1].float()
    for one, truth_of_one, loss in zip(logits, there, found, strict=True):
        expected = ops.sigmoid_focal_loss(one, truth_of_one, reduction="sum") / 4
        torch.testing.assert_close(loss, expected)


@quick
@given(seeds)
def test_costs_and_scores(seed):
    torch.manual_seed(seed)
    labels = torch.tensor([2, 0, 0])
    logits = torch.randn(2, QUERIES, CLASSES + 1)
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(Softmax().scores(logits), p[..., :CLASSES])
    torch.testing.assert_close(Softmax().cost(logits, labels), -p[..., labels])
    logits = torch.randn(2, QUERIES, CLASSES)
    torch.testing.assert_close(Focal().scores(logits), logits.sigmoid())
    hit, miss = (
        ops.sigmoid_focal_loss(logits, torch.full_like(logits, there)) for there in (1.0, 0.0)
    )
    expected = (hit - miss)[..., labels]
    torch.testing.assert_close(Focal().cost(logits, labels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_sure_logits_are_finite(scale):
    logits, pairs, truth, _ = case(0, [2, 0], CLASSES + 1)
    for classify, there in ((Softmax(), logits), (Focal(), logits[..., :-1])):
        sure = (scale * there).requires_grad_()
        loss = classify.loss(sure, pairs, truth, torch.tensor(2.0)).sum()
        loss.backward()
        assert loss.isfinite()
        assert sure.grad is not None
        assert sure.grad.isfinite().all()
        assert classify.cost(sure, truth.labels).isfinite().all()

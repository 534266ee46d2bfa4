"""SEEM's criterion: names and weights, ends of its range, the order of its draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segsweep.data.loader import Target
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.seem import SEEMCriterion
from tests.test_loss_parts import CHANNELS, CLASSES, QUERIES, SIDE, random_targets

SETS = 4
KINDS = {"ce": 2, "bce": 5, "dice": 5}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_output(targets: list[Target], scale: float = 1.0) -> Output:
    """PredictionSets of all sets, leaves of the graph."""
    shape = SETS, len(targets), QUERIES
    logits, embeddings = torch.randn(*shape, CLASSES + 1), torch.randn(*shape, CHANNELS)
    features = torch.randn(len(targets), CHANNELS, SIDE // 4, SIDE // 4)
    leaves = [(scale * leaf).requires_grad_() for leaf in (logits, embeddings, features)]
    return Output(PredictionSets(leaves[0], None, leaves[1]), None, None, None, leaves[2])


def leaves(output: Output) -> list[Tensor]:
    return [output.matching.logits, output.matching.embeddings, output.mask_features]


def test_names_and_total():
    targets = random_targets([2, 3])
    criterion = SEEMCriterion(CLASSES, points=16)
    terms = criterion(random_output(targets), targets)
    assert set(terms) == {f"loss_mask_{kind}_{i}" for kind in KINDS for i in range(SETS)}
    expected = sum(
        w * terms[f"loss_mask_{kind}_{i}"] for kind, w in KINDS.items() for i in range(4)
    )
    torch.testing.assert_close(criterion.total(terms), torch.as_tensor(expected))
    assert criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.1])
    assert not criterion.state_dict()


def test_the_result_is_the_set_of_number_0():
    targets = random_targets([2])
    output, criterion = random_output(targets), SEEMCriterion(CLASSES, points=16)
    terms = criterion(output, targets)
    for i in range(SETS):
        term = torch.stack([terms[f"loss_mask_{kind}_{i}"] for kind in KINDS]).sum()
        (grad,) = torch.autograd.grad(term, output.matching.logits, retain_graph=True)
        assert grad.flatten(1).any(1).nonzero().flatten().tolist() == [SETS - 1 - i]


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [QUERIES + 2, 1], [QUERIES]])
def test_few_and_many_targets(counts, scale):
    targets = random_targets(counts)
    output, criterion = random_output(targets, scale), SEEMCriterion(CLASSES, points=16)
    terms = criterion(output, targets)
    assert len(terms) == len(KINDS) * SETS
    assert all(term.isfinite() and term.grad_fn is not None for term in terms.values())
    criterion.total(terms).backward()
    for leaf in leaves(output):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    if not any(counts):
        masks = [term for name, term in terms.items() if "_ce_" not in name]
        assert all(term == 0 for term in masks)
        none = output.matching.logits[-1].log_softmax(-1)[..., -1]
        torch.testing.assert_close(terms["loss_mask_ce_0"], -none.mean())


def test_autocast_is_left():
    targets = random_targets([2, 3])
    output, criterion = random_output(targets), SEEMCriterion(CLASSES, points=16)
    totals = []
    for low in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            totals.append(criterion.total(criterion(output, targets)))
    assert totals[1].dtype == torch.float32
    assert totals[0].equal(totals[1])


def test_numbers_are_drawn_set_by_set(monkeypatch):
    """Per set: points of the matcher for each image, candidates, plain points (Cheng 2022)."""
    targets, criterion = random_targets([2, 0, 3]), SEEMCriterion(CLASSES, points=16)
    output = random_output(targets)
    torch.manual_seed(5)
    matcher, loss = [], []
    for _ in range(SETS):
        matcher.append(torch.cat([torch.rand(1, 16, 2) for _ in targets]))
        loss.append((torch.rand(5, 48, 2), torch.rand(5, 4, 2)))
    torch.manual_seed(5)
    total = criterion.total(criterion(output, targets))
    drawn = iter(matcher), iter(loss)
    monkeypatch.setattr(criterion, "matcher_points", lambda *_: next(drawn[0]))
    monkeypatch.setattr(criterion, "candidates", lambda *_: next(drawn[1]))
    assert criterion.total(criterion(output, targets)).equal(total)

"""Costs, point losses, point sampling and the class loss give the released program's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segsweep.loss.classes import Softmax
from segsweep.loss.matcher import mask_costs
from segsweep.loss.pairs import Pairs, Truth
from segsweep.loss.points import PointLosses, sample, uncertain_points
from segsweep.loss.seem import SEEMCriterion

pytestmark = pytest.mark.golden


@pytest.fixture
def expected(golden) -> dict[str, Tensor]:
    return golden.arrays("loss_functions")


def test_point_losses(golden, expected):
    """Maps of one row whose cells are the recorded points."""
    logits, labels = expected["point_logits"], expected["point_labels"]
    number = logits.shape[1]
    centres = torch.stack([(torch.arange(number) + 0.5) / number, torch.full((number,), 0.5)], -1)
    losses = PointLosses.apply(logits[:, None], centres.expand(len(logits), -1, -1), labels)
    for kind, loss in zip(("bce", "dice"), losses, strict=True):
        names = [name for name in expected if name.startswith(f"{kind}_num_masks_")]
        assert names
        for name in names:
            golden.check(loss.sum() / float(name.split("_")[-1]), expected[name])


def test_mask_costs(golden, expected):
    bce, dice = mask_costs(expected["cost_src"], expected["cost_tgt"])
    golden.check(bce, expected["cost_bce"])
    golden.check(dice, expected["cost_dice"])


def test_sample(golden, expected):
    found = sample(expected["sample_input"], expected["sample_coords_xy01"])
    golden.check(found, expected["sample_output"])


def test_uncertain_points(expected):
    candidates, plain = expected["unc_rand_candidates"], expected["unc_rand_extra"]
    wanted, number = expected["unc_selected_coords"], int(expected["unc_num_points"])
    found = uncertain_points(expected["unc_logits"].squeeze(1), candidates, plain, number)
    uncertain = number - plain.shape[1]
    assert found[:, uncertain:].equal(wanted[:, uncertain:])
    # the order of the uncertain ones says nothing
    assert in_row(found[:, :uncertain]).equal(in_row(wanted[:, :uncertain]))


def in_row(at: Tensor) -> Tensor:
    """Sort the points of every mask by x. (M, P, 2)"""
    return at.take_along_dim(at[..., :1].argsort(dim=1), dim=1)


def test_class_loss(golden, expected):
    logits, weights = expected["ce_logits"], expected["ce_class_weights"]
    images = range(len(logits))
    labels, query, target = (
        [expected[f"ce_{name}{b}"] for b in images] for name in ("labels", "src", "tgt")
    )
    counts = [len(some) for some in labels]
    target = [t + sum(counts[:b]) for b, t in enumerate(target)]
    pairs = Pairs(torch.cat(query)[None], torch.cat(target)[None], counts)
    truth = Truth(torch.cat(labels), torch.empty(0, 4), torch.empty(0, 1, 1), counts)
    no_object = weights[-1].item()
    found = Softmax(no_object).loss(logits[None], pairs, truth, torch.tensor(1.0))
    golden.check(found[0], expected["ce_loss"])
    golden.check(SEEMCriterion(len(weights) - 1, no_object=no_object).empty_weight, weights)

"""One training step of the head gives the released program's terms, assignments and gradients."""

from __future__ import annotations

import re

import pytest
import torch
from recorded import HEAD
from torch import Tensor

from segsweep.data.loader import Target
from segsweep.loss import matcher
from segsweep.loss.matcher import mask_costs, point_logits
from segsweep.loss.outputs import Output
from segsweep.loss.pairs import Pairs
from segsweep.loss.points import sample
from segsweep.loss.seem import SEEMCriterion

pytestmark = pytest.mark.golden
WEIGHTS = {"class_ce": "ce", "mask_bce": "mask", "mask_dice": "dice"}  # by their recorded names
COSTS = {"class": "ce", "mask": "mask", "dice": "dice"}


class Pinned(SEEMCriterion):
    """Takes the recorded points instead of drawing, set by set from the result backwards."""

    def __init__(self, golden, arrays: dict[str, Tensor], sets: list[str]):
        loss, self.arrays = golden.config["loss"], arrays
        super().__init__(
            golden.config["predictor"]["num_classes"],
            {kind: loss["weights"][name] for name, kind in WEIGHTS.items()},
            loss["num_points"],
            loss["eos_coef"],
        )
        assert self.weights == {kind: loss["matcher_cost"][name] for name, kind in COSTS.items()}
        self.drawn = iter(sets), iter(sets)

    def matcher_points(self, images, device):
        name = next(self.drawn[0])
        return torch.cat([self.arrays[f"{name}/matcher_points_img{b}"] for b in range(images)])

    def candidates(self, masks, device):
        name = next(self.drawn[1])
        points = (self.arrays[f"{name}/loss_{kind}_points"] for kind in ("candidate", "random"))
        candidates, plain = points
        assert len(candidates) == len(plain) == masks
        return candidates, plain


@pytest.fixture
def arrays(golden) -> dict[str, Tensor]:
    return golden.arrays("training_losses")


@pytest.fixture
def sets(arrays) -> list[str]:
    """Names of the sets in the order in which they are evaluated."""
    aux = {int(m[1]) for name in arrays if (m := re.match(r"aux(\d+)/", name))}
    return ["final", *(f"aux{i}" for i in sorted(aux, reverse=True))]


@pytest.fixture
def targets(arrays) -> list[Target]:
    made = []
    for b in range(len(arrays["pred_logits"])):
        labels, masks = arrays[f"target{b}/labels"], arrays[f"target{b}/masks"].bool()
        made.append(Target(labels, torch.zeros(len(labels), 4), masks))
    return made


@pytest.fixture
def assigned(monkeypatch) -> list[tuple[list[Tensor], Pairs]]:
    """Costs of all images and the pairs that the matcher makes of them, as they are found."""
    found, assign = [], matcher.assign

    def seen(costs):
        found.append((costs, assign(costs)))
        return found[-1][1]

    monkeypatch.setattr(matcher, "assign", seen)
    return found


@pytest.fixture
def head(golden, arrays):
    """The head in training, whose only texts are the recorded ones."""
    head = golden.head().train()
    head.predictor.lang_encoder.train_ids = arrays["text_input_ids"].long()[:, None]
    return head


def check_predictions(golden, arrays, sets: list[str], output: Output) -> None:
    logits, embeddings = output.matching.logits, output.matching.embeddings
    assert len(logits) == len(sets)
    for s, name in enumerate(reversed(sets)):
        name = name.removeprefix("final")
        masks = torch.einsum("bqc,bchw->bqhw", embeddings[s], output.mask_features)
        golden.check(logits[s], arrays[f"{name}/pred_logits".strip("/")])
        golden.check(masks, arrays[f"{name}/pred_masks".strip("/")])


def check_assigned(golden, arrays, sets: list[str], costs: list[Tensor], pairs: Pairs) -> None:
    first = [sum(pairs.counts[:b]) for b in range(len(pairs.counts))]
    for s, name in enumerate(sets):
        rows = torch.stack([pairs.query[s], pairs.target[s]]).split(pairs.counts, dim=1)
        for b, (query, target) in enumerate(rows):
            golden.check(costs[b][s], arrays[f"{name}/cost_img{b}"])
            assert query.equal(arrays[f"{name}/match_query_img{b}"])
            assert (target - first[b]).equal(arrays[f"{name}/match_target_img{b}"])


def test_step(golden, arrays, sets, targets, head, assigned):
    features, criterion = golden.features("training_losses"), Pinned(golden, arrays, sets)
    output = head(features, targets)
    check_predictions(golden, arrays, sets, output)
    terms = criterion(output, targets)
    check_assigned(golden, arrays, sets, *assigned[0])
    assert len(terms) == 3 * len(sets)
    for i, name in enumerate(sets):
        for kind in ("ce", "bce", "dice"):
            golden.check(terms[f"loss_mask_{kind}_{i}"], arrays[f"{name}/loss_{kind}"])
    total = criterion.total(terms)
    golden.check(total, arrays["total_weighted"])
    total.backward()
    gradients = {HEAD + name: p.grad for name, p in head.named_parameters()}
    names = [name for name in arrays if name.startswith("grad/")]
    assert any(".lang_encoder." in name for name in names)
    for name in names:
        golden.check_gradient(gradients[name.removeprefix("grad/")], arrays[name])


@torch.no_grad()
def test_parts_of_the_cost(golden, arrays, sets, targets, head):
    output = head(golden.features("training_losses"), targets)
    classify = Pinned(golden, arrays, sets).classify
    parts = [m for name in arrays if (m := re.fullmatch(r"final/cost_(\D+)_img(\d+)", name))]
    assert {part[1] for part in parts} == {"class", "bce", "dice"}
    for part in parts:
        b, at = int(part[2]), arrays[f"final/matcher_points_img{part[2]}"]
        logits = point_logits(output.matching.embeddings[-1, b], output.mask_features[b], at[0])
        bce, dice = mask_costs(logits, sample(targets[b].masks[None].float(), at)[0])
        ce = classify.cost(output.matching.logits[-1, b], targets[b].labels)
        golden.check({"class": ce, "bce": bce, "dice": dice}[part[1]], arrays[part[0]])


@pytest.mark.parametrize("every", [False, True])
def test_images_without_objects(golden, targets, head, every):
    for b in range(len(targets)) if every else [0]:
        targets[b] = Target(targets[b].labels[:0], targets[b].boxes[:0], targets[b].masks[:0])
    criterion = SEEMCriterion(golden.config["predictor"]["num_classes"], points=16)
    terms = criterion(head(golden.features("training_losses"), targets), targets)
    criterion.total(terms).backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()

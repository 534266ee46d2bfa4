"""Loss of one training step, forward and backward to the predictions: factored against dense masks.

Dense: masks of all queries of all sets are made with their graph and every comparison reads them,
as in the original program. Factored: what `segsweep.loss` does. Both must give the same loss. CPU
time on one thread; peak memory is what the step adds to the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks import _sides
from segsweep.data.loader import Target
from segsweep.loss.criterion import Criterion, num_masks, truth_at
from segsweep.loss.denoising import denoising_queries
from segsweep.loss.maskdino import MaskDINOCriterion, denoising_pairs, in_order
from segsweep.loss.matcher import assign, box_costs, mask_costs
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.pairs import Pairs, Truth
from segsweep.loss.points import sample

SIDES = ["dense", "factored"]
CASES: dict[str, dict[str, int]] = {
    "tiny, 8 x 128 x 128": {
        "images": 8, "side": 128, "channels": 64, "queries": 40, "classes": 10,
        "sets": 4, "number": 30, "points": 1024, "repeats": 4,
    },
    "R50, 1 x 512 x 512": {
        "images": 1, "side": 512, "channels": 256, "queries": 300, "classes": 80,
        "sets": 10, "number": 100, "points": 12544, "repeats": 1,
    },
}  # fmt: skip


class Dense(MaskDINOCriterion):
    """The same loss out of dense masks, set after set."""

    def _terms(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        truth, terms = Truth.of(targets), {}
        norm, sets = num_masks(truth), in_order(output.matching, output.interm)
        assert output.denoising
        assert output.queries
        noised, answers = in_order(output.denoising), denoising_pairs(output.queries, truth)
        # the model returns all masks: they exist before the first comparison
        masks, noised_masks = (
            [torch.einsum("bqc,bchw->bqhw", e, output.mask_features) for e in part.embeddings]
            for part in (sets, noised)
        )
        layers = ["", *(f"_{i}" for i in range(len(noised_masks) - 1))]
        for s, name in enumerate([*layers, "_interm"]):
            prediction_set = part_of(sets, s)
            pairs = self.matched(prediction_set, masks[s], targets)
            losses = self._query_losses(prediction_set, pairs, truth, norm)
            losses |= self.compared(masks[s], pairs, truth, norm)
            terms |= self._named(losses, [name])
            if name in layers:
                share = norm * answers.groups
                losses = self._query_losses(part_of(noised, s), answers, truth, share)
                losses |= self.compared(noised_masks[s], answers, truth, share)
                terms |= self._named(losses, [f"_dn{name}"])
        return terms

    @torch.no_grad()
    def matched(
        self, prediction_set: PredictionSets, masks: Tensor, targets: Sequence[Target]
    ) -> Pairs:
        at, costs = self.matcher_points(len(targets), masks.device), []
        for b, target in enumerate(targets):
            logits = sample(masks[b, :, None], at[b].expand(masks.shape[1], -1, -1)).squeeze(1)
            truth = sample(target.masks[None].float(), at[b : b + 1])[0]
            assert prediction_set.boxes is not None
            l1, giou = box_costs(prediction_set.boxes[0, b], target.boxes)
            bce, dice = mask_costs(logits, truth)
            ce = self.classify.cost(prediction_set.logits[0, b], target.labels)
            parts = {"ce": ce, "bbox": l1, "giou": giou, "mask": bce, "dice": dice}
            cost = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum(0)
            costs.append(cost[None])
        return assign(costs)

    def compared(
        self, masks: Tensor, pairs: Pairs, truth: Truth, norm: Tensor
    ) -> dict[str, Tensor]:
        chosen = masks[pairs.image, pairs.query[0]]
        at = self.loss_points(chosen.detach(), self.candidates(len(chosen), masks.device))
        logits, truths = (
            sample(chosen[:, None], at).squeeze(1),
            truth_at(at[None], pairs, truth.masks),
        )
        bce = binary_cross_entropy_with_logits(logits, truths[0], reduction="none").mean(1)
        s = logits.sigmoid()
        dice = 1 - (2 * (s * truths[0]).sum(1) + 1) / (s.sum(1) + truths[0].sum(1) + 1)
        return {"mask": bce.sum()[None] / norm, "dice": dice.sum()[None] / norm}


def part_of(sets: PredictionSets, s: int) -> PredictionSets:
    return PredictionSets(*(field[s : s + 1] for field in vars(sets).values()))


def targets_of(images: int, side: int, classes: int) -> list[Target]:
    """About five ellipses per image, of all sizes."""
    targets, axis = [], (torch.arange(side) + 0.5) / side
    for b in range(images):
        n = 5 if images == 1 else 2 + b % 7
        places = torch.cat([torch.rand(n, 2) * 0.6 + 0.2, torch.rand(n, 2) * 0.35 + 0.05], dim=1)
        x, y, w, h = places.T[:, :, None, None]
        masks = ((axis - x) / w) ** 2 + ((axis[:, None] - y) / h) ** 2 < 0.25
        targets.append(Target(torch.randint(classes, (n,)), places, masks))
    return targets


def step_of(case: str, side: str) -> tuple[Criterion, Output, list[Target], int]:
    """A criterion and what it is given; the predictions are leaves of the graph."""
    c = dict(CASES[case])
    torch.manual_seed(0)
    targets = targets_of(c["images"], c["side"], c["classes"])
    label_enc = nn.Embedding(c["classes"], c["channels"])
    queries = denoising_queries(targets, label_enc, c["queries"], c["classes"], c["number"])
    assert queries

    def predictions(sets: int, count: int) -> PredictionSets:
        shape = sets, c["images"], count
        logits, places = torch.randn(*shape, c["classes"]) - 3, torch.rand(*shape, 4) / 2
        leaves = logits, places, torch.randn(*shape, c["channels"]) / 5
        return PredictionSets(*(leaf.requires_grad_() for leaf in leaves))

    cells = c["side"] // 4
    features = torch.randn(c["images"], c["channels"], cells, cells, requires_grad=True)
    matching, interm = (predictions(sets, c["queries"]) for sets in (c["sets"], 1))
    output = Output(matching, interm, predictions(c["sets"], queries.pad), queries, features)
    criterion = (Dense if side == "dense" else MaskDINOCriterion)(c["classes"], points=c["points"])
    return criterion, output, targets, c["repeats"]


def run(case: str, side: str) -> dict[str, Any]:
    criterion, output, targets, repeats = step_of(case, side)
    total = torch.tensor(0.0)

    def forward() -> None:
        nonlocal total
        torch.manual_seed(1)
        total = criterion.total(criterion(output, targets))

    measured = _sides.measure({"forward": forward, "backward": lambda: total.backward()}, repeats)
    return measured | {"result": {"loss": total.item()}}


def rows() -> list[dict[str, Any]]:
    table = _sides.rows("benchmarks.criterion", list(CASES), SIDES)
    for dense, factored in zip(table[::2], table[1::2], strict=True):
        assert abs(dense["loss"] / factored["loss"] - 1) < 1e-4, table
    return table


if __name__ == "__main__":
    _sides.main(run, rows)

"""Costs, matching, losses, point sampling and denoising queries give the official numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segsweep.data.loader import Target
from segsweep.loss import boxes, criterion, denoising, maskdino, matcher, points
from segsweep.loss.classes import Focal
from segsweep.loss.outputs import Output, PredictionSets

pytestmark = pytest.mark.golden


@pytest.fixture
def expected(golden) -> dict[str, Tensor]:
    return golden.arrays("losses")


@pytest.fixture
def targets(golden, expected) -> list[Target]:
    return padded_targets(golden, golden.arrays("model"))


@pytest.fixture
def output(golden) -> Output:
    """The predictions that the official losses were computed from, one set."""
    arrays = golden.arrays("head_eval")
    with torch.no_grad():
        embeddings = golden.head()(golden.features()).matching.embeddings[-1:]
    logits, places = (arrays[f"eval_mask2box/pred_{name}"][None] for name in ("logits", "boxes"))
    return Output(
        PredictionSets(logits, places, embeddings), None, None, None, arrays["pixel/mask_features"]
    )


def padded_targets(golden, arrays: dict[str, Tensor]) -> list[Target]:
    """The ground truth of a file as the network sees it."""
    made = []
    for b, (height, width) in enumerate(golden.config["img_hw"]):
        truth = {name: arrays[f"gt/{b}/{name}"] for name in ("labels", "boxes_xyxy", "masks")}
        masks = torch.zeros(len(truth["labels"]), *golden.config["pad_hw"], dtype=torch.bool)
        seen = truth["masks"].bool()
        masks[:, : seen.shape[1], : seen.shape[2]] = seen
        corners = truth["boxes_xyxy"] / torch.tensor([width, height, width, height])
        made.append(Target(truth["labels"], boxes.xyxy_to_cxcywh(corners), masks))
    return made


def test_targets(golden, expected, targets):
    for b, target in enumerate(targets):
        golden.check(target.boxes, expected[f"targets/{b}/boxes_cxcywh"])
        assert target.labels.equal(expected[f"targets/{b}/labels"])
        assert list(target.masks.shape) == expected[f"targets/{b}/padded_mask_shape"].tolist()


def test_costs(golden, expected, output, targets):
    at, sets = expected["points/matcher"], output.matching
    for b, target in enumerate(targets):
        logits = matcher.point_logits(sets.embeddings[0, b], output.mask_features[b], at)
        truth = points.sample(target.masks[None].float(), at[None])[0]
        l1, giou = matcher.box_costs(sets.boxes[0, b], target.boxes)
        bce, dice = matcher.mask_costs(logits, truth)
        cls = Focal().cost(sets.logits[0, b], target.labels)
        golden.check(logits, expected[f"matcher/{b}/pred_mask_points"], "mask logits")
        golden.check(truth, expected[f"matcher/{b}/gt_mask_points"])
        parts = {"cls": cls, "bbox_l1": l1, "giou": giou, "mask_bce": bce, "dice": dice}
        for name, cost in parts.items():
            golden.check(cost, expected[f"matcher/{b}/{name}"])


def matched(output: Output, targets: list[Target], at: Tensor) -> matcher.Pairs:
    features, weights = output.mask_features, maskdino.WEIGHTS
    return matcher.match(output.matching, features, targets, [at], weights, Focal())


def test_match(golden, expected, output, targets, monkeypatch):
    costs, assign = [], matcher.assign

    def seen(found):
        costs.extend(found)
        return assign(found)

    monkeypatch.setattr(matcher, "assign", seen)
    at = expected["points/matcher"].expand(len(targets), -1, -1)
    pairs = matched(output, targets, at)
    offset = 0
    for b, n in enumerate(pairs.counts):
        chosen = slice(sum(pairs.counts[:b]), sum(pairs.counts[: b + 1]))
        assert pairs.query[0, chosen].equal(expected[f"matcher/{b}/src_idx"])
        assert (pairs.target[0, chosen] - offset).equal(expected[f"matcher/{b}/tgt_idx"])
        assert n == len(targets[b].labels)
        golden.check(costs[b][0], expected[f"matcher/{b}/cost"])
        offset += len(targets[b].labels)


def test_single_losses(golden, expected, output, targets):
    truth, sets = criterion.Truth.of(targets), output.matching
    assert sets.boxes is not None
    at = expected["points/matcher"].expand(len(targets), -1, -1)
    pairs = matched(output, targets, at)
    logits = criterion.mask_logits(pairs.pick(sets.embeddings), output.mask_features, pairs.counts)
    at = expected["points/loss"].expand(1, logits.shape[1], -1, -1)
    there = criterion.truth_at(at, pairs, truth.masks)
    bce, dice = points.PointLosses.apply(logits[0], at[0], there[0])
    norm = criterion.num_masks(truth)
    golden.check(norm, expected["loss/num_masks"])
    losses = maskdino.box_losses(pairs.pick(sets.boxes), truth.boxes[pairs.target], norm)
    losses |= {"ce": Focal().loss(sets.logits, pairs, truth, norm)}
    losses |= {"mask": bce.sum()[None] / norm, "dice": dice.sum()[None] / norm}
    for kind, (term,) in losses.items():
        golden.check(term, expected[f"loss/loss_{kind}"], "losses")


def test_uncertain_points(golden, expected):
    logits = expected["uncertain/in/mask_logits"].squeeze(1)
    candidates, plain = (expected[f"uncertain/in/draw{n}"] for n in ("0_oversampled", "1_random"))
    wanted = expected["uncertain/out/point_coords"]
    found = points.uncertain_points(logits, candidates, plain, wanted.shape[1])
    uncertain = wanted.shape[1] - plain.shape[1]
    assert found[:, uncertain:].equal(wanted[:, uncertain:])
    # the order of the uncertain ones says nothing
    assert in_row(found[:, :uncertain]).equal(in_row(wanted[:, :uncertain]))


def in_row(at: Tensor) -> Tensor:
    """Sort the points of every mask by x. (M, P, 2)"""
    return at.take_along_dim(at[..., :1].argsort(dim=1), dim=1)


def test_denoising_queries(golden, expected, targets, monkeypatch):
    pin_denoising(monkeypatch, expected, "dn/in/", "p_label")
    wanted = {k.removeprefix("dn/out/"): v for k, v in expected.items() if k.startswith("dn/out/")}
    label_enc = nn.Embedding.from_pretrained(
        golden.state("model")["sem_seg_head.predictor.label_enc.weight"]
    )
    sizes = (golden.config[key] for key in ("queries", "classes", "dn_num"))
    queries = denoising.denoising_queries(targets, label_enc, *sizes)
    assert queries is not None
    golden.check(queries.content, wanted["input_query_label"])
    golden.check(queries.anchors, wanted["input_query_bbox_unsigmoid"])
    assert queries.attention_mask.equal(wanted["attn_mask"])
    assert (queries.pad, queries.groups) == (wanted["pad_size"], wanted["scalar"])

    truth = criterion.Truth.of(targets)
    pairs = maskdino.denoising_pairs(queries, truth)
    # entry of the flat list that stands in each slot of each image
    entry = torch.full((len(targets), queries.pad), -1)
    image = wanted["batch_idx"].repeat(queries.groups)
    entry[image, wanted["map_known_indice"]] = torch.arange(len(image))
    entry = entry[pairs.image, pairs.query[0]]
    assert entry.sort().values.equal(torch.arange(len(image)))
    assert truth.labels[pairs.target[0]].equal(wanted["known_labels"][entry])
    golden.check(truth.boxes[pairs.target[0]], wanted["known_boxes"][entry])
    assert pairs.target[0].equal(wanted["known_indice"][entry])


def pin_denoising(monkeypatch, arrays: dict[str, Tensor], prefix: str, chance: str) -> None:
    """Let denoising take recorded numbers, cut to the number of its entries."""
    noise, labels = arrays[f"{prefix}rand_box"], arrays[f"{prefix}new_label"]

    def uniform(shape, device):
        recorded = noise if len(shape) == 2 else arrays[prefix + chance]
        return recorded[: shape[0]]

    def random_labels(replaced, num_classes):
        return labels[: len(replaced)][replaced]

    monkeypatch.setattr(denoising, "uniform", uniform)
    monkeypatch.setattr(denoising, "random_labels", random_labels)

"""ATSS agrees with mmdet: outputs, anchors, what they stand for, losses, gradients, boxes found."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from recorded import FOLDER
from sam_models import Heads, gradients
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from segsweep.data.loader import Target
from segsweep.loss.anchors import LARGEST, decode, square_anchors
from segsweep.loss.assign import assign
from segsweep.loss.atss import WEIGHTS, ATSSCriterion
from segsweep.loss.boxes import generalized_iou, iou, xyxy_to_cxcywh
from segsweep.loss.focal import focal_sum
from segsweep.model.heads.atss import ATSSHead, BoxReader, class_wise_nms
from segsweep.model.necks.none import Same

pytestmark = pytest.mark.golden
ATSS, PARTS = "atss", "det_misc"
CASES = ("two", "one_empty", "all_empty")
OUTPUTS = {"logits": "cls", "deltas": "reg", "centerness": "ctr"}
READERS = {"pred_small": 1.0, "pred_small_rescaled": 0.73, "pred_default": 1.0}
KNOWN = {
    ATSS: [
        r"sd/.+|in/feat\d|out/(cls|reg|ctr)\d|anchors/(\d|valid_img\d)|gt/(boxes|labels)\d",
        r"(two|one_empty)/(labels|label_weights|pos_img_anchor|pos_bbox_targets)",
        r"(two|one_empty|all_empty)/(avg_factor|total|loss_(cls|bbox|centerness))|grad/.+",
        r"assign/(gt_inds|max_overlaps_pos)_img\d|pred_.+/img\d_(boxes|scores|labels)",
    ],
    PARTS: [
        r"focal/.+|giou/.+|iou/matrix|coder/.+|nms/.+|assign/\d+_(gt|pos|gt_of_pos)",
        r"(dice|solo_t)/.+",  # parts of SOLO
    ],
}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FOLDER / "heads")


def head(heads: Heads, **reading: Any) -> ATSSHead:
    config = heads.config(ATSS)
    neck = Same([config["C"]] * len(config["strides"]), config["strides"])
    sizes = config["feat"], config["stack"], config["groups"]
    model = ATSSHead(neck, config["K"], *sizes, BoxReader(**reading))
    model.load_state_dict(heads.state(ATSS))
    return model


def levels(heads: Heads) -> list[Tensor]:
    arrays = heads.arrays(ATSS)
    return [arrays[f"in/feat{i}"] for i in range(len(heads.config(ATSS)["strides"]))]


def criterion(heads: Heads) -> ATSSCriterion:
    config = heads.config(ATSS)
    return ATSSCriterion(config["K"], config["strides"], config["topk"])


def targets(heads: Heads, case: str) -> list[Target]:
    """Objects of both images, of the first alone, or of none."""
    arrays, config = heads.arrays(ATSS), heads.config(ATSS)
    made = []
    for i, (height, width) in enumerate(config["img"]):
        count = None if case == "two" or (case, i) == ("one_empty", 0) else 0
        boxes, labels = (arrays[f"gt/{name}{i}"][:count] for name in ("boxes", "labels"))
        parts = xyxy_to_cxcywh(boxes) / boxes.new_tensor([width, height] * 2)
        masks = torch.zeros(len(labels), config["H"], config["W"], dtype=torch.bool)
        made.append(Target(labels, parts, masks, (height, width)))
    return made


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_outputs(heads):
    output = head(heads)(levels(heads))
    for ours, theirs in OUTPUTS.items():
        for i, level in enumerate(getattr(output, ours)):
            heads.check(ATSS, f"out/{theirs}{i}", level)


def test_anchors(heads):
    grids: Any = [level.shape[2:] for level in levels(heads)]
    anchors = square_anchors(grids, heads.config(ATSS)["strides"])
    for i, level in enumerate(anchors):
        heads.check(ATSS, f"anchors/{i}", level)
    valid, *_ = criterion(heads).assignment(anchors, grids, targets(heads, "two"))
    for i, image in enumerate(valid):
        heads.check(ATSS, f"anchors/valid_img{i}", image)


@pytest.mark.parametrize("case", ["two", "one_empty"])
def test_assignment(heads, case):
    arrays = heads.arrays(ATSS)
    grids: Any = [level.shape[2:] for level in levels(heads)]
    anchors = square_anchors(grids, heads.config(ATSS)["strides"])
    valid, labels, boxes = criterion(heads).assignment(anchors, grids, targets(heads, case))
    heads.check(ATSS, f"{case}/labels", labels)
    assert torch.equal(valid.float(), arrays[f"{case}/label_weights"])
    positive = labels < heads.config(ATSS)["K"]
    assert torch.equal(positive.nonzero(), arrays[f"{case}/pos_img_anchor"])
    equal(boxes[positive], arrays[f"{case}/pos_bbox_targets"])
    assert not boxes[~positive].any()
    assert positive.sum(1).clamp(min=1).sum() == arrays[f"{case}/avg_factor"]


def test_assignment_of_each_image(heads):
    arrays = heads.arrays(ATSS)
    anchors = [arrays[f"anchors/{i}"] for i in range(len(heads.config(ATSS)["strides"]))]
    for i in (0, 1):
        valid = arrays[f"anchors/valid_img{i}"].split([len(level) for level in anchors])
        seen = [level[part] for level, part in zip(anchors, valid, strict=True)]
        boxes = arrays[f"gt/boxes{i}"]
        index = assign(seen, boxes, heads.config(ATSS)["topk"])
        heads.check(ATSS, f"assign/gt_inds_img{i}", (index + 1) % (len(boxes) + 1))
        found = index < len(boxes)
        overlaps, _ = iou(torch.cat(seen)[found], boxes[index[found]])
        heads.check(ATSS, f"assign/max_overlaps_pos_img{i}", overlaps)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(heads, case):
    model, loss = head(heads), criterion(heads)
    features = [level.clone().requires_grad_() for level in levels(heads)]
    output = model(features)
    terms = loss.by_level(output, targets(heads, case))
    for name, term in terms.items():
        heads.check(ATSS, f"{case}/{name}", WEIGHTS[name] * term)
    sums = loss(output, targets(heads, case))
    total = loss.total(sums)
    heads.check(ATSS, f"{case}/total", total)
    total.backward()
    found = gradients(model)
    norms = heads.manifest[ATSS]["grad_norms"][case]
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        assert float(found[name].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-4), name
    for key in heads.state(ATSS, "grad/") if case == "two" else ():
        place = re.fullmatch(r"in_feat(\d)", key)
        gradient = features[int(place[1])].grad if place else found[key]
        assert gradient is not None
        heads.check(ATSS, f"grad/{key}", gradient)


@torch.no_grad()
@pytest.mark.parametrize("name", READERS)
def test_predictions(heads, name):
    """Scores of the default differ by 1e-6 at times, so boxes of nearly equal ones may swap."""
    config, arrays, factor = heads.config(ATSS), heads.arrays(ATSS), READERS[name]
    small = {"per_level": config["nms_pre"], "per_image": config["max_per"]}
    reading = {} if name == "pred_default" else small
    model = head(heads, threshold=config["thr"], nms=config["nms_iou"], **reading)
    output = model(levels(heads))
    views: Any = [
        ((h, w), tuple(padded), (h / factor, w / factor))
        for (h, w), padded in zip(config["img"], config["pad"], strict=True)
    ]
    for i, found in enumerate(model.predict(output, views)):
        expected = [arrays[f"{name}/img{i}_{part}"] for part in ("boxes", "scores", "labels")]
        heads.check(ATSS, f"{name}/img{i}_scores", found.scores)
        table = torch.cat([found.boxes, found.labels[:, None]], dim=1)
        wanted = torch.cat([expected[0], expected[2][:, None]], dim=1)
        near = (found.scores[:, None] - expected[1]).abs() < 1e-5
        same = ((table[:, None] - wanted).abs() <= 1e-3 + 1e-4 * wanted.abs()).all(2) & near
        assert torch.equal(same.sum(0), torch.ones_like(same.sum(0)))
        assert torch.equal(same.sum(1), torch.ones_like(same.sum(1)))
        if name != "pred_default":
            heads.check(ATSS, f"{name}/img{i}_boxes", found.boxes)
            heads.check(ATSS, f"{name}/img{i}_labels", found.labels)


def test_focal_loss(heads):
    arrays = heads.arrays(PARTS)
    logits, labels = arrays["focal/x"].requires_grad_(), arrays["focal/label"]
    heads.check(PARTS, "focal/loss_mean", 1.5 * focal_sum(logits, labels) / logits.numel())
    pairs = zip(logits.split(1), labels.split(1), strict=True)
    rows = torch.stack([focal_sum(*row) for row in pairs])
    loss = 1.5 * (rows * arrays["focal/weight"]).sum() / 7
    heads.check(PARTS, "focal/loss_avg7_weight1p5", loss)
    (gradient,) = torch.autograd.grad(loss, logits)
    heads.check(PARTS, "focal/grad", gradient)


def test_overlaps(heads):
    """Boxes without area, and such with their corners exchanged, are among them."""
    arrays = heads.arrays(PARTS)
    boxes, true = arrays["giou/pred"].clone().requires_grad_(), arrays["giou/target"]
    loss = 2 * (1 - generalized_iou(boxes, true, 1e-7))
    heads.check(PARTS, "giou/none", loss.detach())
    total = (loss * arrays["giou/weight"]).sum()
    heads.check(PARTS, "giou/loss_w2_avg1", total)
    (gradient,) = torch.autograd.grad(total, boxes)
    heads.check(PARTS, "giou/grad", gradient)
    rows, columns = arrays["iou/matrix"].shape
    overlaps, _ = iou(arrays["giou/pred"][:rows, None], true[:columns])
    heads.check(PARTS, "iou/matrix", overlaps)


def test_offsets(heads):
    arrays = heads.arrays(PARTS)
    anchors = arrays["coder/anchors"]
    boxes = decode(anchors, arrays["coder/deltas"])
    heads.check(PARTS, "coder/decoded", boxes)
    heads.check(PARTS, "coder/decoded_clip_h90_w100", clip_boxes_to_image(boxes, (90, 100)))
    told, true = arrays["coder/encoded_to_giou_target"], arrays["giou/target"]
    bounded = (0.2 * told[:, 2:]).abs().amax(1) > LARGEST  # one box is too small for its anchor
    assert bounded.sum() == 1
    equal(decode(anchors[: len(true)], told)[~bounded], true[~bounded])


@pytest.mark.parametrize("most", [0.5, 0.6])
def test_suppression(heads, most):
    arrays = heads.arrays(PARTS)
    boxes, scores, labels = (arrays[f"nms/{name}"] for name in ("boxes", "scores", "idx"))
    kept = class_wise_nms(boxes, scores, labels, most)
    heads.check(PARTS, f"nms/keep_{most}", kept)


def test_assignments_of_many_images(heads):
    arrays, (height, width) = heads.arrays(PARTS), heads.config(PARTS)["assign_image"]
    strides = heads.config(ATSS)["strides"]
    grids = [(-(-height // stride), -(-width // stride)) for stride in strides]
    anchors = square_anchors(grids, strides)
    for i in range(heads.manifest[PARTS]["checks"]["assign_cases"]):
        boxes = arrays[f"assign/{i}_gt"]
        index = assign(anchors, boxes)
        (positive,) = (index < len(boxes)).nonzero(as_tuple=True)
        heads.check(PARTS, f"assign/{i}_pos", positive)
        heads.check(PARTS, f"assign/{i}_gt_of_pos", index[positive] + 1)


@pytest.mark.parametrize("file", KNOWN)
def test_every_array_is_compared(heads, file):
    pattern = re.compile("|".join(f"({known})" for known in KNOWN[file]))
    assert not [name for name in heads.arrays(file) if not pattern.fullmatch(name)]

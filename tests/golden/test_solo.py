"""SOLO agrees with mmdet's: what it reads, learns from and finds, and Matrix NMS by itself."""

from __future__ import annotations

import re

import pytest
import torch
from recorded import FOLDER, Recorded
from torch import Tensor

from segsweep.data.formats import masks as formats
from segsweep.data.geometry import View
from segsweep.data.loader import Target
from segsweep.loss.boxes import xyxy_to_cxcywh
from segsweep.loss.solo import NOTHING, SOLOCriterion, assigned, dice_loss, resized
from segsweep.model.heads import frames
from segsweep.model.heads.cell_instances import CellReader, probabilities_of
from segsweep.model.heads.matrix_nms import MatrixNMS, peaks
from segsweep.model.heads.solo import SOLOHead
from segsweep.model.necks.none import Same
from segsweep.model.solo import GRIDS

pytestmark = pytest.mark.golden

KNOWN = [
    r"sd/.+|in/feat\d|gt/(boxes|labels|masks)\d(_packed)?|tgt/img\d_lvl\d_(labels|pos|masks_.+)",
    r"out_(train|eval)/(cls|mask)\d|(two|one_empty|all_empty)/(loss_(cls|mask)|total)|grad/.+",
    r"pred/img\d_(labels|scores|masks_(packed|shape))|matrix_nms/.+",
]
MISC = [r"dice/(x|y|vnet_none)|solo_t/.+"]
NOT_OURS = {r"dice/naive_none": "another form of dice, which SOLO does not use"}
SITUATIONS = {"two": (True, True), "one_empty": (True, False), "all_empty": (False, False)}


class Given:
    """What was recorded of SOLO: its configuration, inputs and objects."""

    def __init__(self):
        self.recorded = Recorded(FOLDER / "heads")
        self.said = self.recorded.manifest["solo"]
        self.config, self.arrays = self.said["config"], self.recorded.arrays("solo")
        self.frame = self.config["H"], self.config["W"]
        self.ranges = self.config["scale_ranges"]

    def head(self) -> SOLOHead:
        """The head with the recorded weights."""
        c = self.config
        neck = Same([c["C"]] * len(c["num_grids"]), c["feature_strides"])
        test = c["test"]
        nms = MatrixNMS(
            test["kernel"], test["sigma"], test["nms_pre"], test["filter_thr"], test["max_per_img"]
        )
        head = SOLOHead(
            neck, c["K"], c["num_grids"], c["feat"], c["stack"], c["groups"],
            CellReader(test["score_thr"], test["mask_thr"], nms),
        )  # fmt: skip
        head.load_state_dict(self.recorded.state("solo"))
        assert head.strides == c["strides"]
        return head

    def features(self) -> list[Tensor]:
        """Maps of the levels."""
        return [self.arrays[f"in/feat{i}"] for i in range(len(self.config["num_grids"]))]

    def target(self, b: int, seen: bool = True) -> Target:
        """The objects of an image, or none."""
        boxes, (h, w) = self.arrays[f"gt/boxes{b}"], self.config["img"][b]
        n = len(boxes) if seen else 0
        masks = unpacked(self.arrays[f"gt/masks{b}_packed"], *self.frame)
        parts = xyxy_to_cxcywh(boxes) / torch.tensor([w, h, w, h])
        return Target(self.arrays[f"gt/labels{b}"][:n], parts[:n], masks[:n], (h, w))

    def criterion(self) -> SOLOCriterion:
        """The loss."""
        c = self.config
        return SOLOCriterion(c["strides"], self.ranges, c["pos_scale"], c["dice_weight"])

    def check(self, actual: Tensor, name: str, kind: str = "default") -> None:
        """Compare within the recorded tolerance."""
        tolerance = self.said["tolerances"][kind]
        torch.testing.assert_close(actual, self.arrays[name], **tolerance)


@pytest.fixture(scope="module")
def given() -> Given:
    """What was recorded of SOLO."""
    return Given()


def unpacked(bits: Tensor, *shape: int) -> Tensor:
    """Masks of packed bits, all in one row or each in its own. -> (*shape) or (n, *shape)"""
    flat = (bits[..., None] >> torch.arange(7, -1, -1) & 1).bool().flatten(-2)
    return flat[..., : torch.Size(shape).numel()].reshape(*bits.shape[:-1], *shape)


def test_every_array_is_compared(given):
    misc = [name for name in given.recorded.arrays("det_misc") if name[:4] in ("dice", "solo")]
    known = re.compile("|".join(f"({p})" for p in [*KNOWN, *MISC, *NOT_OURS]))
    assert len(given.arrays) > 50
    assert misc
    assert not [name for name in [*given.arrays, *misc] if not known.fullmatch(name)]


def test_outputs_of_training(given):
    head = given.head()
    found = head.tensors(head(given.features()))
    names = [name for name in given.arrays if name.startswith("out_train/")]
    assert len(names) == len(found) == 2 * len(head.grids)
    for name in names:
        ours = name.removeprefix("out_train/").replace("cls", "classes").replace("mask", "masks")
        halves = given.arrays[name].numel() > 20000  # were stored in half precision
        given.check(found[ours], name, "f16" if halves else "default")


@torch.no_grad()
def test_outputs_of_evaluation(given):
    head = given.head()
    output = head(given.features())
    for level, logits in enumerate(output.classes):
        found = torch.stack([peaks(image.sigmoid()) for image in logits])
        given.check(found, f"out_eval/cls{level}")
    ends = torch.tensor([len(kernels) for kernels in output.kernels]).cumsum(0)
    last = torch.arange(int(ends[-2]), int(ends[-1]))
    found = torch.stack([probabilities_of(output, b, last) for b in range(2)])
    given.check(found, f"out_eval/mask{len(ends) - 1}", "f16")


def check_targets(
    owners: list[Tensor], labels: Tensor, classes: int, arrays: dict[str, Tensor], name: str
) -> list[Tensor]:
    """Compare what cells answer for; return the objects of those that do, by level."""
    objects = []
    for level, owner in enumerate(owners):
        positive = (owner != NOTHING).nonzero()[:, 0]
        assert positive.equal(arrays[f"{name}_lvl{level}_pos"])
        found = torch.full_like(owner, classes)
        found[positive] = labels[owner[positive]]
        assert found.equal(arrays[f"{name}_lvl{level}_labels"].flatten())
        objects.append(owner[positive])
    return objects


@pytest.mark.parametrize("b", range(2))
def test_targets(given, b):
    target, c = given.target(b), given.config
    owners = given.criterion().owners(target, given.head()(given.features()))
    objects = check_targets(owners, target.labels, c["K"], given.arrays, f"tgt/img{b}")
    for level, objects_of in enumerate(objects):
        name = f"tgt/img{b}_lvl{level}_masks"
        shape = given.arrays[f"{name}_shape"].tolist()
        found = resized(target.masks, c["strides"][level] / 2, tuple(shape[1:]))[objects_of]
        assert found.equal(unpacked(given.arrays[f"{name}_packed"], *shape))


@pytest.mark.parametrize("case", range(2))
def test_targets_at_official_grids(given, case):
    arrays, c = given.recorded.arrays("det_misc"), given.recorded.manifest["det_misc"]["config"]
    c, name = c["solo_t"], f"solo_t/{case}"
    masks = unpacked(arrays[f"{name}_masks_packed"], c["H"], c["W"])
    boxes = arrays[f"{name}_boxes"]
    owners = assigned(
        masks, boxes[:, 2:] - boxes[:, :2], c["num_grids"], c["scale_ranges"], c["pos_scale"]
    )
    objects = check_targets(owners, arrays[f"{name}_labels"], c["num_classes"], arrays, name)
    for level, objects_of in enumerate(objects):
        size = tuple(c["featmap_sizes"][level])
        areas = resized(masks, c["strides"][level] / 2, size).sum((1, 2))[objects_of]
        assert areas.equal(arrays[f"{name}_lvl{level}_area"])


def test_dice(given):
    arrays = given.recorded.arrays("det_misc")
    found = dice_loss(arrays["dice/x"].sigmoid()[:, None], arrays["dice/y"][:, None].float())
    found *= given.config["dice_weight"]
    tolerance = given.recorded.manifest["det_misc"]["tolerances"]["default"]
    torch.testing.assert_close(found, arrays["dice/vnet_none"], **tolerance)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_losses_and_gradients(given, situation):
    head, criterion = given.head(), given.criterion()
    features = [feature.clone().requires_grad_() for feature in given.features()]
    targets = [given.target(b, seen) for b, seen in enumerate(SITUATIONS[situation])]
    terms = criterion(head(features), targets)
    total = criterion.total(terms)
    given.check(criterion.mask_weight * terms["loss_mask"], f"{situation}/loss_mask")
    given.check(terms["loss_cls"], f"{situation}/loss_cls")
    given.check(total, f"{situation}/total")
    total.backward()
    gradients = {name: weight.grad for name, weight in head.named_parameters()}
    gradients |= {f"in_feat{i}": feature.grad for i, feature in enumerate(features)}
    norms = given.said["grad_norms"][situation]
    assert set(norms) == set(dict(head.named_parameters()))
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-4), name
    if situation == "two":
        for name in (name for name in given.arrays if name.startswith("grad/")):
            given.check(gradients[name.removeprefix("grad/")], name, "grad/*")


def views(given: Given) -> list[View]:
    """Sizes of both images as seen, as padded, and of their files."""
    seen, original = given.config["img"], given.config["ori"]
    return [(tuple(a), given.frame, tuple(b)) for a, b in zip(seen, original, strict=True)]


@torch.no_grad()
def test_instances(given):
    head = given.head()
    for b, found in enumerate(head.predict(head(given.features()), views(given))):
        name = f"pred/img{b}"
        given.check(found.scores, f"{name}_scores")
        assert found.labels.equal(given.arrays[f"{name}_labels"])
        count, *size = given.arrays[f"{name}_masks_shape"].tolist()
        expected = unpacked(given.arrays[f"{name}_masks_packed"], *size)
        assert found.masks.shape == (count, *size)
        assert (found.masks == expected).float().mean() >= 0.999
        assert [formats.bbox(rle) for rle in found.rles] == [o["bbox"] for o in found.coco]


@torch.no_grad()
def test_few_masks_at_a_time_are_the_same_and_better_ones_need_no_worse(given, monkeypatch):
    head = given.head()
    output = head(given.features())
    all_ = head.predict(output, views(given))
    monkeypatch.setattr(frames, "CELLS", 2 * given.config["H"] * given.config["W"])
    for whole, found in zip(all_, head.predict(output, views(given)), strict=True):
        torch.testing.assert_close(found.scores, whole.scores)
        assert found.rles == whole.rles
    least = float(all_[0].scores[0])
    for whole, found in zip(all_, head.predict(output, views(given), least), strict=True):
        assert len(found.scores) < len(whole.scores)
        assert found.above(least).coco == whole.above(least).coco


@torch.no_grad()
def test_half_precision_and_nothing_found(given):
    head = given.head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(given.features())
        terms = given.criterion()(output, [given.target(b) for b in range(2)])
    assert output.maps[0].dtype == torch.bfloat16
    assert terms["loss_cls"] == pytest.approx(float(given.arrays["two/loss_cls"]), rel=0.05)
    head.reader.threshold = 1.0
    for found, view in zip(head.predict(output, views(given)), views(given), strict=True):
        assert not found.rles
        assert found.boxes.shape == (0, 4)
        assert found.masks.shape == (0, *view[-1])


@pytest.mark.parametrize("row", [f"SOLOHead K={k}" for k in (1, 20, 80)])
def test_counts(given, row):
    counts = given.recorded.json("param_counts")
    for convs, form in ((7, "7 convs"), (4, "4 convs (class default)")):
        with torch.device("meta"):
            neck = Same([256] * 5, given.config["feature_strides"])
            head = SOLOHead(neck, int(row.split("=")[1]), GRIDS, convs=convs)
        assert sum(p.numel() for p in head.parameters()) == counts[f"{row} {form}"]


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_matrix_nms(given, kernel):
    bits = given.arrays["matrix_nms/masks_packed"]
    masks = unpacked(bits, *given.frame)
    labels, scores = (given.arrays[f"matrix_nms/{name}"] for name in ("labels", "scores"))
    nms = MatrixNMS(kernel, given.config["test"]["sigma"], candidates=10, least=0.05, most=8)
    found, kept = nms(scores, labels, masks.__getitem__)
    given.check(found, f"matrix_nms/{kernel}_scores")
    assert kept.equal(given.arrays[f"matrix_nms/{kernel}_keep"])
    assert labels[kept].equal(given.arrays[f"matrix_nms/{kernel}_labels"])

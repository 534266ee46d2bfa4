"""ATSS beyond what is recorded of mmdet: padding, ties, several processes, what is found."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import Tensor

from segsweep.base.config import words
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.data.loader import Target
from segsweep.loss.anchors import centrality, decode, square_anchors
from segsweep.loss.assign import assign
from segsweep.loss.atss import ATSSCriterion, ATSSOutput
from segsweep.loss.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from segsweep.model.atss import ATSS
from segsweep.model.heads.atss import ATSSHead, BoxReader
from segsweep.model.necks.none import Same
from segsweep.model.pyramid import HEAD, NeckConfig

STRIDES, CLASSES, FRAME = [8, 16, 32], 3, (64, 96)
GRIDS = [(FRAME[0] // s, FRAME[1] // s) for s in STRIDES]
CONF = Path(__file__).parents[1] / "conf" / "model"


def drawn_boxes(count: int, size: tuple[int, int] = FRAME) -> Tensor:
    """Corner boxes in an image of a size."""
    corners = torch.rand(count, 2, 2).sort(1).values * torch.tensor([size[1], size[0]])
    return corners.flatten(1)


def target(count: int, size: tuple[int, int] | None = None) -> Target:
    height, width = size or FRAME
    boxes = xyxy_to_cxcywh(drawn_boxes(count)) / torch.tensor([FRAME[1], FRAME[0]] * 2)
    masks = torch.zeros(count, *FRAME, dtype=torch.bool)
    return Target(torch.arange(count) % CLASSES, boxes, masks, size and (height, width))


def output(images: int) -> ATSSOutput:
    maps = [[torch.randn(images, n, *g) for g in GRIDS] for n in (CLASSES, 4, 1)]
    return ATSSOutput(*maps)


def head(**reading: Any) -> ATSSHead:
    neck = Same([8] * len(STRIDES), STRIDES)
    return ATSSHead(neck, CLASSES, 8, 1, 2, BoxReader(**reading))


def plainly_assigned(anchors: list[Tensor], boxes: Tensor, topk: int) -> Tensor:
    """The same as `assign`, box by box and anchor by anchor."""
    every, best = torch.cat(anchors), {}
    for g, box in enumerate(boxes):
        candidates, first = [], 0
        for level in anchors:
            centres = (level[:, :2] + level[:, 2:]) / 2
            distances = (centres - (box[:2] + box[2:]) / 2).norm(dim=1)
            candidates += (first + distances.argsort()[:topk]).tolist()
            first += len(level)
        overlaps = torch.stack([iou(every[a], box)[0] for a in candidates])
        for a, overlap in zip(candidates, overlaps, strict=True):
            x, y = ((every[a, :2] + every[a, 2:]) / 2).tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            enough = overlap >= overlaps.mean() + overlaps.std()
            if inside and enough and overlap > best.get(a, (0, 0))[0]:
                best[a] = (overlap, g)
    return torch.tensor([best.get(a, (0, len(boxes)))[1] for a in range(len(every))])


@pytest.mark.parametrize("topk", [2, 9, 100])
def test_assignment_is_that_of_plain_loops(topk):
    torch.manual_seed(topk)
    anchors = square_anchors(GRIDS, STRIDES)
    boxes = drawn_boxes(6)
    boxes = torch.cat([boxes, boxes[:3] + 0.25])  # many anchors stand for several
    assert torch.equal(assign(anchors, boxes, topk), plainly_assigned(anchors, boxes, topk))


def test_of_equal_boxes_the_first_is_taken():
    anchors, box = square_anchors(GRIDS, STRIDES), torch.tensor([[10.0, 12, 53, 58]])
    alone = assign(anchors, box)
    assert (alone == 0).any()
    thrice = assign(anchors, box.repeat(3, 1))
    assert torch.equal(thrice == 0, alone == 0)
    assert torch.equal(thrice == 3, alone == 1)
    outside = assign(anchors, box + 500)  # no centre is inside
    assert torch.equal(outside, torch.ones_like(outside))
    assert not assign(anchors, box[:0]).any()


def test_offsets_and_centrality():
    anchors = torch.tensor([[0.0, 0, 64, 64]]).expand(3, 4)
    deltas = torch.tensor([[0.0, 0, 0, 0], [10, -5, 0, 0], [0, 0, 5, -5]])
    wide, low = 32 * math.e, 32 / math.e
    wanted = [[0, 0, 64, 64], [64, -32, 128, 32], [32 - wide, 32 - low, 32 + wide, 32 + low]]
    torch.testing.assert_close(decode(anchors, deltas), torch.tensor(wanted))
    boxes = torch.tensor([[0.0, 0, 64, 64], [16, 0, 80, 64], [32, 0, 96, 64]])
    torch.testing.assert_close(centrality(anchors, boxes), torch.tensor([1, 3**-0.5, 0]))


def test_an_image_is_padded_for_itself():
    """What is beyond the 32nd pixel behind an image has no loss, and pulls at nothing."""
    torch.manual_seed(0)
    maps, small = output(2), target(3, (40, 33))  # padded to 64 x 64
    for level in maps.logits:
        level.requires_grad_()
    criterion = ATSSCriterion(CLASSES, STRIDES)
    criterion.total(criterion(maps, [target(3), small])).backward()
    for level, stride in zip(maps.logits, STRIDES, strict=True):
        assert level.grad is not None
        seen = level.grad.abs().sum(1) > 0
        assert seen[0].all()
        assert seen[1, :, : 64 // stride].all()
        assert not seen[1, :, 64 // stride :].any()


def test_an_image_that_fills_the_frame_says_no_size():
    torch.manual_seed(0)
    maps, criterion, objects = output(1), ATSSCriterion(CLASSES, STRIDES), target(4)
    objects.masks = objects.masks[:, :0]  # nobody reads masks
    whole = criterion(maps, [objects])
    objects.size = FRAME
    assert whole == criterion(maps, [objects])


def test_autocast_is_left():
    torch.manual_seed(0)
    maps, criterion, objects = output(2), ATSSCriterion(CLASSES, STRIDES), [target(3), target(0)]
    half = ATSSOutput(*([level.bfloat16() for level in levels] for levels in maps))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = [criterion(each, objects) for each in (maps, half)]
    assert terms[0] == criterion(maps, objects)
    assert all(term.dtype == torch.float32 for each in terms for term in each.values())
    rounded = ATSSOutput(*([level.float() for level in levels] for levels in half))
    assert terms[1] == criterion(rounded, objects)


def check_share(rank: int, address: str, whole: dict[str, Tensor]) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.manual_seed(0)
    maps, objects = output(2), [target(1), target(9)]
    part = ATSSOutput(*([level[rank : rank + 1] for level in levels] for levels in maps))
    for name, term in ATSSCriterion(CLASSES, STRIDES)(part, objects[rank : rank + 1]).items():
        dist.all_reduce(term)
        torch.testing.assert_close(term / 2, whole[name])
    dist.destroy_process_group()


def test_shares_of_a_batch_have_its_loss_on_average(tmp_path):
    torch.manual_seed(0)
    maps, objects = output(2), [target(1), target(9)]
    whole = ATSSCriterion(CLASSES, STRIDES)(maps, objects)
    address = f"file://{tmp_path / 'rendezvous'}"
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=check_share, args=(r, address, whole)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]


@torch.no_grad()
def test_what_is_found():
    """Boxes lie in the image, at its own size; of a class none overlaps a better one much."""
    torch.manual_seed(0)
    model, maps = head(per_image=50), output(2)
    views: Any = [((50, 80), FRAME, (100, 160)), (FRAME, FRAME, FRAME)]
    found, _ = model.predict(maps, views)
    assert len(found.scores) == 50
    assert found.rles is None
    assert found.scores.equal(found.scores.sort(descending=True).values)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([160, 100] * 2)).all()
    overlaps = iou(found.boxes[:, None], found.boxes)[0].fill_diagonal_(0)
    same = found.labels[:, None] == found.labels
    assert overlaps[same].max() <= model.reader.nms < overlaps[~same].max()


@torch.no_grad()
def test_few_are_found_where_few_are_wanted():
    torch.manual_seed(0)
    model, maps, views = head(), output(1), [(FRAME, FRAME, FRAME)]
    (found,) = model.predict(maps, views)
    for least in (float(found.scores[20]), 2.0):
        (few,) = model.predict(maps, views, least)
        wanted = max(1, int((found.scores >= least).sum()))
        assert few.scores.equal(found.scores[:wanted])
        assert few.boxes.equal(found.boxes[:wanted])
    (none,) = head(threshold=1.0).predict(maps, views, least=0.5)
    assert none.coco == []
    broken = ATSSOutput(*([level * torch.nan for level in levels] for levels in maps))
    assert model.predict(broken, views)[0].coco == []


@torch.no_grad()
def test_tensors_say_what_is_found():
    torch.manual_seed(0)
    model, maps = head(nms=1.0), output(2)
    tensors = model.tensors(maps)
    assert tensors.keys() == model.meanings.keys()
    scores = tensors["logits"].sigmoid() * tensors["centerness"].sigmoid()[..., None]
    for b, found in enumerate(model.predict(maps, [(FRAME, FRAME, FRAME)] * 2)):
        anchor, label = (scores[b] == found.scores[0]).nonzero()[0].tolist()
        assert label == found.labels[0]
        box = cxcywh_to_xyxy(tensors["boxes"][b, anchor]).clamp(0, 1)
        torch.testing.assert_close(box * torch.tensor([96.0, 64] * 2), found.boxes[0])


def family(word: str, **changes: Any) -> ATSS:
    chosen: Any = OmegaConf.load(CONF / f"{word}.yaml")
    for key in ("_target_", "defaults"):
        chosen.pop(key, None)
    merged = OmegaConf.merge(OmegaConf.structured(ATSS), chosen, changes)
    built: Any = OmegaConf.to_object(merged)
    return built


def test_classes_are_drawn_by_a_seed():
    chosen = family("vit_tiny_atss")
    model = chosen.build(Subject(("a", "b")))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.testing.assert_close(before[f"{HEAD}atss_cls.bias"].sigmoid(), torch.tensor([0.01] * 2))
    draws = []
    for seed in (1, 2, 1):
        chosen.draw_classes(model, seed)
        draws.append(model.state_dict()[f"{HEAD}atss_cls.weight"].clone())
    assert draws[0].equal(draws[2])
    assert not draws[0].equal(draws[1])
    assert float(draws[0].std()) == pytest.approx(0.01, rel=0.1)
    after = model.state_dict()
    assert {n for n in after if not after[n].equal(before[n])} == {f"{HEAD}atss_cls.weight"}
    assert chosen.official(model)["bbox_head.atss_cls.weight"].equal(draws[2])


@pytest.mark.parametrize(("classes", "count"), [(80, 4918618), (20, 4780318), (1, 4736523)])
def test_size_of_the_head(classes, count):
    with torch.device("meta"):
        model = ATSSHead(Same([256] * 5, [8] * 5), classes)
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_norms_must_part_the_width():
    with pytest.raises(UserError, match=r"model.channels=60 .* model.groups=8"):
        family("vit_tiny_atss", channels=60)


def test_levels_of_unequal_widths_are_refused():
    chosen = family("swin_tiny_atss")
    chosen.neck = NeckConfig("none")
    with pytest.raises(UserError, match=r"model.neck.name=none: .*\[24, 48, 96, 192\] channels"):
        chosen.build(Subject(("a",)))


@pytest.mark.parametrize(
    "word", [word for word, kind in words("model").items() if kind is ATSS and "tiny" in word]
)
def test_words_learn_and_find(word):
    """A tiny word takes a step downhill on one image, every part of it with a gradient."""
    torch.manual_seed(0)
    chosen = family(word)
    model = chosen.build(Subject(("a", "b"))).train()
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]])
    objects = [Target(torch.tensor([1]), box, torch.zeros(1, 128, 128, dtype=torch.bool))]
    images = torch.randn(1, 3, 128, 128)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = model.loss(model(images, objects), objects)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    without = [n for n, weight in model.named_parameters() if weight.grad is None]
    assert not [n for n in without if n.startswith(HEAD)]
    view = ((128, 128), (128, 128), (128, 128))
    model.eval().predict(model(images), [view])

"""Instances at the original image size agree with the official post-processing."""

from __future__ import annotations

import pytest
import torch

from segsweep.data.base import DataSet, Record, Subject
from segsweep.data.loader import collate
from segsweep.data.transforms import Sample
from segsweep.loss.boxes import bitmask
from segsweep.loss.classes import Focal
from segsweep.model.found import Instances
from segsweep.model.heads.query import reader

pytestmark = pytest.mark.golden


@pytest.fixture
def predict(golden, features):
    def predict(focus_on_box: bool) -> list[Instances]:
        config = golden.config
        head = golden.head()
        subject, classify = Subject(["class"] * config["classes"]), Focal()
        head.reader = reader(subject, classify, config["topk"], focus_on_box)
        padded = tuple(config["pad_hw"])
        sizes, originals = ([tuple(hw) for hw in config[key]] for key in ("img_hw", "orig_hw"))
        views = [(size, padded, original) for size, original in zip(sizes, originals, strict=True)]
        with torch.no_grad():
            return head.predict(head(features), views)

    return predict


def aligned(found: Instances, expected: dict[str, torch.Tensor]) -> Instances:
    """Bring instances into the order of the file, which is that of an unsorted top-k."""
    distance = (found.scores[None] - expected["scores"][:, None]).abs()
    distance += 10.0 * (found.labels[None] != expected["pred_classes"][:, None])
    distance += (found.boxes[None] - expected["pred_boxes"][:, None]).abs().amax(-1)
    order = distance.argmin(1)
    assert len(set(order.tolist())) == len(order)
    columns = (found.scores[order], found.labels[order], found.boxes[order])
    return Instances(*columns, [found.rles[k] for k in order.tolist()], found.size)


def test_instances(golden, predict):
    for image, found in enumerate(predict(focus_on_box=False)):
        expected = golden.state("inference", f"default/{image}/")
        assert (found.scores.diff() <= 0).all()
        found = aligned(found, expected)
        assert found.labels.equal(expected["pred_classes"])
        assert list(found.masks.shape[1:]) == expected["image_size"].tolist()
        equal = found.masks == (expected["pred_masks"] > 0)
        assert equal.float().mean() >= 0.9995
        golden.check(found.scores, expected["scores"])
        golden.check(found.boxes, expected["pred_boxes"])
        golden.check(bitmask(found.masks), expected["boxes_from_masks"])


def test_images_are_padded_to_one_frame(golden):
    expected, nothing = golden.state("inference", "imagelist/"), torch.empty(0)
    samples = []
    for height, width in golden.config["img_hw"]:
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        empty = torch.empty(0, height, width, dtype=torch.bool)
        record = Record(0, "", height, width, [])
        samples.append(Sample(image, nothing.long(), nothing.view(0, 4), empty, record))
    batch = collate(samples, DataSet())
    assert list(batch.images.shape) == expected["shape"].tolist()
    assert batch.sizes == [tuple(size) for size in expected["sizes"].tolist()]


def test_scores_of_boxes_alone(golden, predict):
    for image, found in enumerate(predict(focus_on_box=True)):
        expected = golden.arrays("inference")[f"focus_on_box/{image}/scores"]
        golden.check(found.scores, expected.sort(descending=True).values)

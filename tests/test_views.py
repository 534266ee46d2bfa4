"""How images reach the network: the frames that they are put into, and what is drawn of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Boxes, DataSet, Record, Transform
from segsweep.data.geometry import Geometry
from segsweep.data.loader import collate, generator
from segsweep.data.sets.digits_semantic import DigitsSemantic
from segsweep.data.transforms import boxes_of, sample, tight_boxes, training_geometry

HEIGHT, WIDTH = 48, 64
SHAPE = [12.0, 6, 50, 10, 44, 40, 20, 30]


def picture() -> tuple[np.ndarray, Record]:
    """Noise with a polygon and a box on it, as an instance each."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    corner = [40.0, 30, 60, 30, 60, 44, 40, 44]
    shapes = (SHAPE, [12.0, 6, 38, 34]), (corner, [40.0, 30, 20, 14])
    listed = [Annotation(k, [shape], box, 1.0) for k, (shape, box) in enumerate(shapes)]
    return pixels, Record(1, "", HEIGHT, WIDTH, listed)


RECORDED = {
    "squash": "b37f5b923f1b3f25",
    "lsj": "8a0e6c90d436c65f",
}  # by the code before there were other transforms


@pytest.mark.parametrize("name", RECORDED)
def test_views_of_recorded_runs_stay_to_the_bit(name: str) -> None:
    """Geometries as drawn; pixels, masks and boxes where nothing but the cut and flip acts."""
    pixels, record = picture()
    data = DataSet("", "x", size=[40, 56], transform=Transform[name])
    as_is = DataSet("", "x", size=[48, 64], transform=Transform[name], scale=[1.0, 1.0])
    digest = hashlib.sha256()
    for index in range(40):
        geometry = training_geometry(data, record, generator(3, index))
        digest.update(repr(geometry).encode())
        digest.update(sample(pixels, record, geometry).masks.numpy().tobytes())
        seen = sample(pixels, record, training_geometry(as_is, record, generator(3, index)))
        batch = collate([seen], data)
        tensors = seen.image, seen.labels, seen.boxes, seen.masks, batch.images
        for tensor in tensors:
            digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest()[:16] == RECORDED[name]


@st.composite
def rectangles(draw: st.DrawFn) -> tuple[Record, Geometry]:
    """A rectangle of whole pixels, and a geometry by whose scale it stays one of whole pixels."""
    height, width = draw(st.integers(4, 20)), draw(st.integers(4, 20))
    across, down = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    w, h = draw(st.integers(1, width - x)), draw(st.integers(1, height - y))
    resized = (height * down, width * across)
    size = draw(st.integers(3, resized[0] + 5)), draw(st.integers(3, resized[1] + 5))
    room = [max(r - s, 0) for r, s in zip(resized, size, strict=True)]
    offset = draw(st.integers(0, room[0])), draw(st.integers(0, room[1]))
    corners = [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]
    instance = Annotation(0, [corners], [float(v) for v in (x, y, w, h)], float(w * h))
    record = Record(1, "", height, width, [instance])
    return record, Geometry(resized, size, offset, draw(st.booleans()))


@given(rectangles())
@settings(max_examples=60, deadline=None)
def test_annotated_boxes_go_where_the_masks_go(case: tuple[Record, Geometry]) -> None:
    record, geometry = case
    pixels = np.zeros((record.height, record.width, 3), np.uint8)
    boxes = boxes_of(record, geometry)
    assert boxes.shape == (1, 4)
    tight = sample(pixels, record, geometry)
    annotated = sample(pixels, record, geometry, boxes=Boxes["annotation"])
    assert bool((boxes[:, 2:] > 0).all()) == len(tight.boxes) == len(annotated.boxes)
    torch.testing.assert_close(annotated.boxes, tight_boxes(tight.masks))


def test_boxes_that_are_out_of_sight_are_dropped_with_their_objects() -> None:
    """The annotated box says more than the mask: it may be seen where the mask is not."""
    pixels, record = picture()
    wide = replace(record.annotations[1], bbox=[0.0, 0, 64, 48])
    away = replace(record.annotations[0], bbox=[60.0, 40, 4, 8])
    crowd = replace(wide, iscrowd=True)
    record = replace(record, annotations=[away, crowd, wide])
    corner = Geometry((48, 64), (40, 50), (8, 0))
    expected = torch.tensor([[1, 0.9, 0, 0.2], [0.5, 0.5, 1, 1]])
    torch.testing.assert_close(boxes_of(record, corner), expected)
    for boxes, labels in (Boxes["mask"], [0, 1]), (Boxes["annotation"], [1]):
        seen = sample(pixels, record, corner, boxes=boxes)
        assert seen.labels.tolist() == labels
        assert len(seen.masks) == len(seen.boxes) == len(labels)
    empty = sample(pixels, replace(record, annotations=[]), corner, boxes=Boxes["annotation"])
    assert empty.boxes.shape == (0, 4)


def test_label_maps_have_no_annotated_boxes() -> None:
    with pytest.raises(UserError, match=r"data\.boxes=annotation: .*data=digits_semantic"):
        DigitsSemantic(name="digits_semantic", boxes=Boxes["annotation"])

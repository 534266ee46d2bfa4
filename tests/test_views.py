"""How images reach the network: the frames that they are put into, and what is drawn of them."""

from __future__ import annotations

import colorsys
import hashlib
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Boxes, DataSet, Record, Transform
from segsweep.data.geometry import Geometry, evaluation_geometry, nearest
from segsweep.data.loader import EvalLoader, TrainLoader, collate, generator
from segsweep.data.photometric import distorted, saturated
from segsweep.data.sets.digits_semantic import DigitsSemantic
from segsweep.data.transforms import (
    boxes_of,
    sample,
    tight_boxes,
    training_geometry,
    training_views,
)
from segsweep.exporting.inference import frame

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
    beyond = replace(record, annotations=[replace(wide, bbox=[50.0, 40, 30, 20])])
    cut = boxes_of(beyond, Geometry((48, 64), (96, 128)))  # what is padded is no image
    torch.testing.assert_close(cut, torch.tensor([[57 / 128, 44 / 96, 14 / 128, 8 / 96]]))
    empty = sample(pixels, replace(record, annotations=[]), corner, boxes=Boxes["annotation"])
    assert empty.boxes.shape == (0, 4)


def test_label_maps_have_no_annotated_boxes() -> None:
    with pytest.raises(UserError, match=r"data\.boxes=annotation: .*data=digits_semantic"):
        DigitsSemantic(name="digits_semantic", boxes=Boxes["annotation"])


FIT: dict[str, Any] = {"transform": Transform["fit"], "size": [80, 133], "crop": [102, 102]}
CROP: dict[str, Any] = {
    "transform": Transform["crop"],
    "size": [64, 256],
    "crop": [64, 64],
    "scale": [0.5, 2.0],
}


def shown(options: dict[str, Any], **changes: Any) -> DataSet:
    """A set whose images are seen so."""
    return DataSet("", "x", **{**options, **changes})


def drawn(data: DataSet, height: int, width: int, count: int = 60) -> list[Geometry]:
    """How an image of this size is seen in training, so many times."""
    record = Record(1, "", height, width, [])
    return [training_geometry(data, record, generator(0, index)) for index in range(count)]


@pytest.mark.parametrize(("height", "width", "resized"), [
    (480, 640, (80, 107)), (640, 480, (107, 80)),  # the short side tells, upright or lying
    (300, 900, (44, 133)), (900, 300, (133, 44)),  # the long one
    (427, 640, (80, 120)), (24, 40, (80, 133)), (1, 1000, (1, 133)),
])  # fmt: skip
def test_fit_is_the_largest_that_two_sides_allow(
    height: int, width: int, resized: tuple[int, int]
) -> None:
    data = shown(FIT)
    record = Record(1, "", height, width, [])
    assert evaluation_geometry(data, record) == Geometry(resized, resized)
    turned = shown(FIT, size=[133, 80])
    assert evaluation_geometry(turned, record) == Geometry(resized, resized)
    seen = drawn(data, height, width)
    cut = tuple(min(side, 102) for side in resized)
    assert {g.resized for g in seen} == {resized}
    assert {g.size for g in seen} == {cut}
    room = [side - kept for side, kept in zip(resized, cut, strict=True)]
    for axis in (0, 1):
        places = {g.offset[axis] for g in seen}
        assert min(places) <= 0.2 * room[axis]
        assert 0.8 * room[axis] <= max(places) <= room[axis]
    assert 0.3 < np.mean([g.flip for g in seen]) < 0.7
    whole = shown(FIT, crop=None)
    assert {g.size for g in drawn(whole, height, width, 5)} == {resized}
    assert training_views(whole) is training_views(data) is None


@pytest.mark.parametrize("options", [FIT, CROP, {"size": [80, 130], "transform": Transform["lsj"]}])
def test_an_exported_program_holds_every_picture(options: dict[str, Any]) -> None:
    data = shown(options)
    room = frame(data)
    shapes = (480, 640), (640, 480), (1, 1000), (1000, 1)
    sizes = [evaluation_geometry(data, Record(1, "", *shape, [])).size for shape in shapes]
    largest = [max(side) for side in zip(*sizes, strict=True)]
    assert [-(-side // 32) * 32 for side in largest] == list(room)
    assert all(str(side) in data.transform.value.in_words(data.size) for side in data.size)


def test_the_published_sizes_of_coco_and_ade20k() -> None:
    """mmdet's 1333 x 800 and mmseg's 2048 x 512, as their own resizing gives them."""
    coco = DataSet("", "x", transform=Transform["fit"], size=[800, 1333])
    ade = DataSet("", "x", transform=Transform["crop"], size=[512, 2048], crop=[512, 512])
    sizes = {
        (480, 640): ((800, 1067), (512, 683)),
        (375, 1242): ((402, 1333), (512, 1696)),
        (683, 512): ((1067, 800), (683, 512)),
        (100, 1000): ((133, 1333), (205, 2048)),
    }
    for (height, width), expected in sizes.items():
        record = Record(1, "", height, width, [])
        found = [evaluation_geometry(data, record).resized for data in (coco, ade)]
        assert tuple(found) == expected


def test_crop_draws_scale_and_place() -> None:
    data = shown(CROP)
    seen = drawn(data, 48, 64, 200)
    heights = np.array([g.resized[0] for g in seen])  # 64 at a factor of 1
    assert heights.min() < 36
    assert heights.max() > 124
    assert np.mean(heights) == pytest.approx(80, abs=6)
    assert all(g.size == tuple(min(side, 64) for side in g.resized) for g in seen)
    record = Record(1, "", 48, 64, [])
    assert evaluation_geometry(data, record).size == (64, 85)


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_no_class_fills_a_cut_where_there_is_a_better_place(seed: int) -> None:
    """A strip of one class in another one, beside what is unknown."""
    data = shown(CROP, scale=[1.0, 1.0])
    labels = np.full((64, 256), 255, np.uint8)
    labels[:, :200], labels[:, :30] = 3, 7
    record = Record(1, "", 64, 256, [], labels="x")
    geometry = training_geometry(data, record, generator(seed), labels)
    plain = training_geometry(data, record, generator(seed))
    tries = [torch.rand(2, generator=g) for g in [after(seed)] for _ in range(10)]
    row = [plain.offset, *((0, int(float(t[1]) * 193)) for t in tries)]
    good = [offset for offset in row[:10] if share(labels, geometry, offset) < 0.75]
    assert geometry.offset == (good or row)[0 if good else -1]
    assert geometry == geometry.__class__(plain.resized, (64, 64), geometry.offset, plain.flip)


def after(seed: int) -> torch.Generator:
    """The generator behind the first draws of a geometry."""
    draws = generator(seed)
    torch.rand(4, generator=draws)
    return draws


def share(labels: np.ndarray, geometry: Geometry, offset: tuple[int, int]) -> float:
    """The largest part of the known pixels of a cut that one class fills."""
    seen = nearest(labels, replace(geometry, offset=offset)).ravel()
    known = seen[seen != 255]
    return max(np.unique(known, return_counts=True)[1], default=1) / max(len(known), 1)


def test_views_are_functions_of_seed_epoch_and_index() -> None:
    """Pixels, too, whose colours change; evaluation sees whole images as they are."""
    options: dict[str, Any] = {**CROP, "size": [64, 64], "crop": [32, 48]}
    data = DigitsSemantic(name="digits_semantic", train=4, val=3, side=64, **options)
    batches = [list(TrainLoader(data, 2, seed=5).batches(0, 4)) for _ in range(2)]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.images, b.images)
        assert a.images.shape == (2, 3, 32, 64)  # as data.crop, to multiples of 32
        assert all(h <= 32 and w <= 48 for h, w in a.sizes)
        assert all(t.label_map is not None and (t.label_map[32:] == 255).all() for t in a.targets)
    assert not torch.equal(batches[0][0].images, batches[0][2].images)
    first = next(iter(EvalLoader(data, "val", 3)))
    assert first.sizes == [(64, 64)] * 3
    pixels = torch.from_numpy(data.image(data.records("val")[0])).permute(2, 0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    torch.testing.assert_close(first.images[0] * std + mean, pixels.float(), atol=1e-3, rtol=0)


@given(st.integers(0, 2**32), st.floats(0.5, 1.5))
@settings(max_examples=20, deadline=None)
def test_saturation_is_that_of_hsv(seed: int, factor: float) -> None:
    image = torch.randint(0, 256, (3, 4, 5), generator=generator(seed), dtype=torch.uint8)
    image[:, 0] = image[0, 0]  # grey
    found = saturated(image, factor).flatten(1).T.tolist()
    for before, now in zip(image.flatten(1).T.tolist(), found, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        expected = colorsys.hsv_to_rgb(h, min(s * factor, 1), v)
        assert now == pytest.approx([255 * c for c in expected], abs=0.51)


def test_colours_change_as_often_and_as_far_as_they_should() -> None:
    """Half of the time each: nothing at all in one of 16; grey knows brightness and contrast."""
    grey, red = torch.full((3, 2, 2), 100, dtype=torch.uint8), torch.zeros(3, 2, 2).byte()
    red[0] = 100
    seen = [distorted(grey, generator(1, k))[:, 0, 0] for k in range(400)]
    assert all(len(set(pixel.tolist())) == 1 for pixel in seen)
    values = torch.stack(seen)[:, 0].tolist()
    assert 0.15 < np.mean([v == 100 for v in values]) < 0.35
    assert 34 <= min(values) < 45  # (100 - 32) / 2
    assert 170 < max(values) <= 198
    hues = [distorted(red, generator(1, k))[:, 0, 0].tolist() for k in range(400)]
    turned = [colorsys.rgb_to_hsv(*(c / 255 for c in p))[0] for p in hues]
    turned = [h - round(h) for h in turned]
    assert 0.4 < np.mean([abs(h) < 1e-6 for h in turned]) < 0.6
    assert -0.105 < min(turned) < -0.08
    assert 0.08 < max(turned) < 0.105
    assert torch.equal(distorted(grey, generator(3)), distorted(grey, generator(3)))


@pytest.mark.parametrize(("options", "message"), [
    ({"crop": [64, 64]}, r"data\.crop=\[64, 64\]: data\.transform=squash does not cut"),
    ({"transform": Transform["crop"]}, r"data\.transform=crop: .*data\.crop=\[512,512\]"),
    ({"transform": Transform["fit"], "crop": [64]}, r"data\.crop=\[64\]: must be 2 numbers"),
])  # fmt: skip
def test_sizes_that_cannot_be_cut_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        shown(options)


def test_a_way_to_resize_stays_itself_in_other_processes() -> None:
    assert [pickle.loads(pickle.dumps(way)) for way in Transform] == list(Transform)
    assert [way.value.word for way in Transform] == [w.name for w in Transform]

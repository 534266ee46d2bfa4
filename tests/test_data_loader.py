"""What a step sees: masks that fit their pixels, and nothing that depends on where one began."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Record, Resample, Transform
from segsweep.data.formats import masks
from segsweep.data.geometry import Geometry, evaluation_geometry
from segsweep.data.loader import Batch, EvalLoader, TrainLoader, collate, generator
from segsweep.data.sets.digits import Digits
from segsweep.data.transforms import sample, tight_boxes, training_geometry
from segsweep.loss.boxes import bitmask, xyxy_to_cxcywh
from tests.small_coco import HEIGHT, WIDTH, content, real, write

SHAPE = [12.0, 6, 50, 10, 44, 40, 20, 30]  # polygon in a picture of 64 x 48


def picture(form: str = "polygon") -> tuple[np.ndarray, Record]:
    """A white shape on black, and the record that says so."""
    mask = masks.to_mask([SHAPE], (HEIGHT, WIDTH))
    pixels = np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255
    segmentation = [SHAPE] if form == "polygon" else masks.encode(mask[None])[0]
    instance = Annotation(2, segmentation, [0, 0, 1, 1], 1.0)
    return pixels, Record(5, "a.png", HEIGHT, WIDTH, [instance])


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


GEOMETRIES = {
    "as it is": Geometry((48, 64), (48, 64)),
    "flip": Geometry((48, 64), (48, 64), flip=True),
    "squash": Geometry((96, 96), (96, 96), flip=True),
    "crop": Geometry((144, 192), (96, 96), (20, 60)),
    "crop and flip": Geometry((144, 192), (96, 96), (20, 30), flip=True),
    "pad": Geometry((72, 96), (128, 128)),
    "pad and flip": Geometry((72, 96), (128, 128), flip=True),
    "crop and pad": Geometry((120, 160), (160, 100), (0, 40)),
}


@pytest.mark.parametrize("form", ["polygon", "rle"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_masks_stay_on_their_pixels(geometry: str, form: str) -> None:
    pixels, record = picture(form)
    seen = sample(pixels, record, GEOMETRIES[geometry])
    bright = seen.image[0] > 191  # the grey of padding is 128
    assert seen.image.shape[1:] == seen.masks.shape[1:] == GEOMETRIES[geometry].size
    assert overlap(seen.masks[0], bright) > (0.99 if geometry == "as it is" else 0.93)
    assert seen.labels.tolist() == [2]


def test_polygons_are_exact_at_the_scale_of_the_sample() -> None:
    pixels, record = picture()
    seen = sample(pixels, record, Geometry((480, 640), (480, 640)))
    expected = masks.to_mask([[10 * v for v in SHAPE]], (480, 640))
    assert (seen.masks[0].numpy() == expected).all()


@pytest.mark.parametrize("size", [[30, 50], [100, 96]], ids=["smaller", "larger"])
@pytest.mark.parametrize("resample", Resample)
def test_pixels_are_resized_as_pillow_does(
    tmp_path: Path, resample: Resample, size: list[int]
) -> None:
    data = write(tmp_path, size=size, resample=resample)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    record = picture()[1]
    geometry = evaluation_geometry(data, record)
    seen = sample(pixels, record, geometry).image.permute(1, 2, 0).numpy().astype(int)
    how = Image.Resampling[resample.name.upper()]
    expected = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how)).astype(int)
    assert np.abs(seen - expected).max() <= 1
    for transform in {*Transform} - {Transform["part"]}:  # which is for no set of instances
        crop = [20, 20] if transform.name == "crop" else None
        shown = replace(data, transform=transform, crop=crop)
        drawn = training_geometry(shown, record, generator(0))
        assert drawn.resample is resample


@given(st.integers(0, 2**32), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_boxes_are_tight_around_masks(seed: int, count: int) -> None:
    stack = torch.rand(count, 9, 14, generator=generator(seed)) > 0.97
    stack = stack[stack.flatten(1).any(1)]
    expected = xyxy_to_cxcywh(bitmask(stack)) / torch.tensor([14, 9, 14, 9])
    torch.testing.assert_close(tight_boxes(stack), expected)


def test_instances_that_are_lost_or_crowds_are_left_out() -> None:
    pixels, record = picture()
    corner = [60.0, 44, 64, 44, 64, 48, 60, 48]
    record.annotations += [
        Annotation(0, [corner], [60, 44, 4, 4], 16),
        Annotation(1, [SHAPE], [0, 0, 1, 1], 1, iscrowd=True),
    ]
    assert sample(pixels, record, Geometry((48, 64), (48, 64))).labels.tolist() == [2, 0]
    cropped = sample(pixels, record, Geometry((48, 64), (40, 40)))
    assert cropped.labels.tolist() == [2]
    empty = sample(pixels, record, Geometry((480, 640), (20, 20), (460, 0)))
    assert empty.masks.shape == (0, 20, 20)
    assert empty.boxes.shape == (0, 4)


def test_drawings_beyond_the_image_do_not_reach_the_padding() -> None:
    pixels, record = picture()
    record.annotations[0].segmentation = [[30.0, 20, 90, 20, 90, 80, 30, 80]]
    seen = sample(pixels, record, Geometry((48, 64), (96, 96)))
    assert seen.masks[0, 20:48, 30:64].all()
    assert seen.masks.sum() == 28 * 34


def test_lsj_keeps_the_aspect_ratio_and_uses_its_range(tmp_path: Path) -> None:
    data = write(tmp_path, transform=Transform["lsj"], size=[96, 96], scale=[0.5, 2.0])
    record = picture()[1]
    drawn = [training_geometry(data, record, generator(0, i)) for i in range(300)]
    ratio = np.array([g.resized[1] / g.resized[0] for g in drawn])
    widths = np.array([g.resized[1] for g in drawn])
    assert np.abs(ratio - WIDTH / HEIGHT).max() < 0.04
    assert widths.min() < 55
    assert widths.max() > 185
    assert 0.4 < np.mean([g.flip for g in drawn]) < 0.6
    assert all(g.size == (96, 96) for g in drawn)
    for g in drawn:
        room = [max(r - s, 0) for r, s in zip(g.resized, g.size, strict=True)]
        assert all(0 <= o <= r for o, r in zip(g.offset, room, strict=True))
    assert evaluation_geometry(data, record) == Geometry((72, 96), (72, 96))


def test_batches_are_normalised_then_padded_with_zeros(tmp_path: Path) -> None:
    data = write(tmp_path, mean=[10, 20, 30], std=[2, 4, 5])
    pixels, record = picture()
    samples = [sample(pixels, record, Geometry((h, w), (h, w))) for h, w in ((48, 64), (40, 80))]
    batch = collate(samples, data)
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes == [(48, 64), (40, 80)]
    assert batch.original_sizes == [(HEIGHT, WIDTH)] * 2
    assert batch.image_ids == [5, 5]
    assert batch.images[0, :, 0, 0].tolist() == [-5, -5, -6]
    assert not batch.images[0, :, 48:].any()
    assert not batch.images[0, :, :, 64:].any()
    assert not batch.images[1, :, 40:].any()
    assert batch.targets[1].masks.shape == (1, 64, 96)
    box = xyxy_to_cxcywh(bitmask(batch.targets[1].masks)) / torch.tensor([80, 40, 80, 40])
    torch.testing.assert_close(batch.targets[1].boxes, box)  # in parts of the unpadded size


def test_a_batch_moves_as_a_whole() -> None:
    batch = next(TrainLoader(Digits(name="digits", train=2, val=1), 2, 0).batches(0)).to("meta")
    assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}


def tensors(batch: Batch) -> list[torch.Tensor]:
    values = [batch.images, *(value for t in batch.targets for value in vars(t).values())]
    return [value for value in values if isinstance(value, torch.Tensor)]


def equal(a: Batch, b: Batch) -> bool:
    same = all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
    return same and a.image_ids == b.image_ids


DATA = Digits(name="digits", train=11, val=3, side=32, size=[32, 32])
REFERENCE = list(TrainLoader(DATA, 3, seed=1).batches(0, 12))


@given(st.integers(0, 11), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_a_run_can_go_on_at_any_step(step: int, before: int) -> None:
    loader = TrainLoader(DATA, 3, seed=1)
    list(loader.batches(100, before))  # what else was asked for does not matter
    epoch = list(loader.epoch(step))
    assert len(loader) == 3
    assert len(epoch) == 3 - step % 3
    expected = REFERENCE[step:]
    got = [*epoch, *loader.epoch(step + len(epoch))] if step < 6 else epoch
    assert all(equal(a, b) for a, b in zip(got, expected, strict=False))


@pytest.mark.parametrize("transform", ["squash", "lsj"])
def test_workers_change_nothing(transform: str) -> None:
    data = Digits(
        name="digits", train=11, val=3, side=32, size=[64, 48], transform=Transform[transform]
    )
    alone = TrainLoader(data, 3, seed=1)
    helped = TrainLoader(data, 3, seed=1, workers=2)
    for step in (2, 3):  # workers stay for the second epoch
        epochs = zip(alone.epoch(step), helped.epoch(step), strict=True)
        assert all(equal(a, b) for a, b in epochs)
    some = list(itertools.islice(helped.batches(4), 2))  # left in the middle
    assert all(equal(a, b) for a, b in zip(some, alone.batches(4, 2), strict=True))
    assert all(equal(a, b) for a, b in zip(helped.batches(0, 2), alone.batches(0, 2), strict=True))


def test_processes_share_each_batch_without_rest() -> None:
    parts = []
    for rank in (0, 1):
        loader = TrainLoader(DATA, 3, seed=1)
        loader.share(rank, 2)
        parts.append(list(loader.batches(0, 6)))
    for whole, first, second in zip(REFERENCE[:6], *parts, strict=True):
        assert sorted(first.image_ids + second.image_ids) == sorted(whole.image_ids)
        place = whole.image_ids.index(second.image_ids[0])
        assert torch.equal(second.images[0], whole.images[place])  # the same augmentation
    with pytest.raises(UserError, match="batch_size=3"):
        loader.share(0, 4)


def test_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(
            i for batch in TrainLoader(DATA, 3, seed).batches(3 * epoch, 3) for i in batch.image_ids
        )
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9
    images = [
        next(TrainLoader(Digits(name="d", train=1, val=1), 1, 0).batches(e)).images
        for e in range(9)
    ]
    assert len({image.numpy().tobytes() for image in images}) == 2  # flipped or not


def test_an_epoch_is_every_image_but_the_last_incomplete_batch() -> None:
    ids = [i for batch in REFERENCE[:3] for i in batch.image_ids]
    assert len(set(ids)) == len(ids) == 9


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(TrainLoader(DATA, 3, seed=1).epoch(0))
    list(EvalLoader(DATA, "val", 2))
    assert torch.equal(torch.rand(2), expected)


def test_small_sets_are_one_batch_and_empty_ones_an_error(tmp_path: Path) -> None:
    loader = TrainLoader(Digits(name="digits", train=2, val=1), 8, seed=0)
    assert len(loader) == len(list(loader.epoch(0))) == 1
    crowds = content()
    for annotation in crowds["annotations"]:
        annotation["iscrowd"] = 1
    with pytest.raises(UserError, match="iscrowd=1"):
        TrainLoader(write(tmp_path, train=crowds), 8, seed=0)


def test_images_without_instances_are_evaluated_but_not_learnt(tmp_path: Path) -> None:
    empty = content()
    empty["annotations"].pop()
    data = write(tmp_path, train=empty, val=empty, size=[32, 32])
    assert [b.image_ids for b in TrainLoader(data, 1, 0).epoch(0)] == [[7]]
    batches = list(EvalLoader(data, "val", 2))
    assert [b.image_ids for b in batches] == [[7, 3]]
    assert batches[0].targets[1].masks.shape == (0, 32, 32)


def test_evaluation_sees_every_image_in_order() -> None:
    loader = EvalLoader(DATA, "val", 2)
    assert len(loader) == 2
    for _ in range(2):
        assert [b.image_ids for b in loader] == [[1, 2], [3]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    data = write(tmp_path, size=[32, 32])
    (tmp_path / "images/first.png").write_text("hello")
    with pytest.raises(UserError, match=r"^\S*first\.png: cannot be read") as error:
        list(EvalLoader(data, "val", 1, workers))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["coco_tiny", "nuclei", "rice_leaf"])
@pytest.mark.parametrize("transform", ["squash", "lsj"])
def test_real_sets_can_be_learnt(name: str, transform: str) -> None:
    data = real(name, size=[96, 128], transform=Transform[transform])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in TrainLoader(data, 8, 0).batches(0, 3):
            assert batch.images.shape == (8, 3, 96, 128)
            for target in batch.targets:
                assert target.masks.flatten(1).any(1).all()
                assert len(target.masks) == len(target.labels) == len(target.boxes)
                assert ((target.boxes > 0) & (target.boxes <= 1)).all()

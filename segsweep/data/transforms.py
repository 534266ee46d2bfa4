"""From a record to a sample: resize, flip or crop pixels and targets with the same numbers.

Every random number comes from the generator of the sample, so a sample is a pure function of
(seed, epoch, index). A label map gives one target per class (mask classification, Cheng 2021), so
models train on it as on instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from segsweep.data.base import BACKGROUND, IGNORE, Annotation, Boxes, DataSet, Record
from segsweep.data.geometry import Geometry, Size, nearest, rasterised

PADDING = 128  # grey of what lsj has to add (detectron2's FixedSizeCrop)
ASPECTS = 3 / 4, 4 / 3  # least and largest width : height of a part (torchvision)
TRIES, FULL = 10, 0.75  # of places for a cut; of it, for one class (mmseg's RandomCrop)


@dataclass
class Sample:
    """One image as the network sees it, and its instances, or the regions of its classes.

    `image` (3, h, w) uint8; `labels` (n,) int64; `boxes` (n, 4) cxcywh in parts of (h, w), tight
    around `masks` (n, h, w) bool or as annotated; `record` is where it came from; `label_map`
    (h, w) uint8 of a semantic image: class, BACKGROUND or IGNORE.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    record: Record
    label_map: Tensor | None = None


def training_geometry(
    data: DataSet,
    record: Record,
    generator: torch.Generator,
    label_map: np.ndarray | None = None,
) -> Geometry:
    """Draw how one training image is seen: the flip, the scale, row and column of the cut.

    For `crop` the cut of a label map (H, W) is drawn again while one class fills too much of it, at
    most TRIES times (mmseg's RandomCrop).
    """
    way, (low, high) = data.transform.value, data.scale
    if way.partial:
        return part_of(data, record, generator)
    draw = torch.rand(4, generator=generator).tolist()
    resized = way.resized(data.size, (record.height, record.width), low + (high - low) * draw[1])
    size = way.cut(data.size, data.crop, resized)
    geometry = Geometry(resized, size, place(resized, size, draw[2:]), draw[0] < 0.5, data.resample)
    if not way.varied or label_map is None:
        return geometry
    for _ in range(TRIES):
        if mixed(nearest(label_map, geometry, fill=IGNORE)):
            break
        parts = torch.rand(2, generator=generator).tolist()
        geometry = replace(geometry, offset=place(resized, size, parts))
    return geometry


def part_of(data: DataSet, record: Record, generator: torch.Generator) -> Geometry:
    """Draw a part of an image, resized to `size` (torchvision's RandomResizedCrop).

    Area uniform in `scale` of the whole, log(width / height) uniform between those of ASPECTS, at
    most TRIES times; then the largest part in the middle whose aspect is allowed. The image as a
    whole is resized by the factors of the part, then cut: both are rounded to pixels.
    """
    whole, (low, high) = record.height * record.width, map(math.log, ASPECTS)
    for _ in range(TRIES):
        draw = torch.rand(4, generator=generator).tolist()
        area = whole * (data.scale[0] + (data.scale[1] - data.scale[0]) * draw[0])
        aspect = math.exp(low + (high - low) * draw[1])
        height, width = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if height <= record.height and width <= record.width:
            break
    else:
        draw = [0.0, 0.0, 0.5, 0.5]
        height = min(record.height, record.width / ASPECTS[0])
        width = min(record.width, record.height * ASPECTS[1])
    size = data.size[0], data.size[1]
    sides = zip(size, (record.height, record.width), (height, width), strict=True)
    rows, columns = (max(round(side * all_ / part), side) for side, all_, part in sides)
    flip = float(torch.rand(1, generator=generator)) < 0.5
    return Geometry((rows, columns), size, place((rows, columns), size, draw[2:]), flip,
                    data.resample)  # fmt: skip


def place(resized: Size, size: Size, parts: Sequence[float]) -> tuple[int, int]:
    """Return row and column of a cut, each at its part (0..1) of the room that there is."""
    row, column = (
        int(part * (max(available - needed, 0) + 1))
        for part, available, needed in zip(parts, resized, size, strict=True)
    )
    return row, column


def mixed(label_map: np.ndarray) -> bool:
    """Say whether each class fills less than FULL of the pixels of which something is known."""
    counts = np.bincount(label_map.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(counts.max() < FULL * counts.sum())


def training_views(data: DataSet) -> int | None:
    """Return in how many ways `training_geometry` may show an image, None if there is no end."""
    return 2 if data.transform.value.exact else None  # as it is, and flipped


def sample(
    pixels: np.ndarray,
    record: Record,
    geometry: Geometry,
    label_map: np.ndarray | None = None,
    boxes: Boxes = Boxes["mask"],
) -> Sample:
    """Apply a geometry to an image (H, W, 3) uint8, and to its instances or its label map (H, W).

    Whatever has no pixel left, or nothing of its annotated box where that is wanted, is left out.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = F.horizontal_flip(image) if geometry.flip else image
    how = InterpolationMode(geometry.resample.value)
    image = cut(F.resize(image, list(geometry.resized), how, antialias=True), geometry)
    if label_map is None:
        return Sample(image, *instances(record, geometry, boxes), record)
    seen = torch.from_numpy(nearest(label_map, geometry, fill=IGNORE))
    labels, stack = regions(seen)
    return Sample(image, labels, tight_boxes(stack), stack, record, seen)


def instances(record: Record, geometry: Geometry, boxes: Boxes) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is seen of the instances that are no crowd, without those that are not.

    What is annotated as a box alone has this box, and its rectangle as a mask.

    -> classes (n,), boxes (n, 4) cxcywh in 0..1, masks (n, *size) bool
    """
    listed = objects(record)
    labels = torch.tensor([a.category for a in listed], dtype=torch.int64)
    stack = torch.zeros((len(listed), *geometry.size), dtype=torch.bool)
    for mask, instance in zip(stack, listed, strict=True):
        mask[:] = torch.from_numpy(rasterised(instance.shape, record, geometry))
    alive = stack.view(torch.uint8).flatten(1).amax(1).bool()
    told = [boxes is Boxes["annotation"] or a.segmentation is None for a in listed]
    if not any(told):
        return labels[alive], tight_boxes(stack[alive]), stack[alive]
    annotated, by_box = boxes_of(record, geometry), torch.tensor(told)
    alive &= ~by_box | (annotated[:, 2:] > 0).all(1)
    labels, annotated, stack, by_box = (x[alive] for x in (labels, annotated, stack, by_box))
    return labels, torch.where(by_box[:, None], annotated, tight_boxes(stack)), stack


def objects(record: Record) -> list[Annotation]:
    """Return the instances of a record that are no crowd."""
    return [a for a in record.annotations if not a.iscrowd]


def boxes_of(record: Record, geometry: Geometry) -> Tensor:
    """Return where a sample shows the annotated boxes of its `objects`, cut at the image's edges.

    -> (n, 4) float32 cxcywh in parts of `size`; nothing is seen of a box if a side of it is 0.
    """
    image, resized, size, offset = (
        torch.tensor(pair[::-1], dtype=torch.float64)  # (x, y)
        for pair in (
            (record.height, record.width), geometry.resized, geometry.size, geometry.offset
        )
    )  # fmt: skip
    given = torch.tensor([a.bbox for a in objects(record)], dtype=torch.float64)
    corners = given.view(len(given), 2, 2).cumsum(1) * resized / image  # (n, near/far, x/y)
    if geometry.flip:
        corners[..., 0] = resized[0] - corners[..., 0].flip(1)
    room = torch.minimum(size, resized - offset)  # what is beyond it is padding
    near, far = (corners - offset).clamp(min=0).minimum(room).unbind(1)
    return (torch.cat([near + far, 2 * (far - near)], 1) / (2 * size).repeat(2)).float()


def regions(label_map: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes that are seen and where each is. (h, w) uint8 -> (n,), (n, h, w) bool

    What is unknown, or padded, belongs to no mask.
    """
    labels = label_map.unique()
    labels = labels[labels < BACKGROUND]
    return labels.long(), label_map == labels[:, None, None]


def tight_boxes(stack: Tensor) -> Tensor:
    """Return the boxes around masks that all have pixels. (n, h, w) bool -> (n, 4) cxcywh in 0..1

    The far side is one past the last pixel (`loss.boxes.bitmask`). The maximum of bytes is much
    faster on a CPU than `any` of booleans.
    """
    sides = []
    for across in (1, 2):  # columns, then rows
        line = stack.view(torch.uint8).amax(across)
        length = line.shape[1]
        first, last = line.argmax(1), length - line.flip(1).argmax(1)
        sides.append(torch.stack([first + last, 2 * (last - first)], -1) / (2 * length))
    return torch.stack(sides, -1).flatten(1)


def cut(image: Tensor, geometry: Geometry) -> Tensor:
    """Take `size` at `offset` out of a resized image, padded below and right. -> (3, *size)"""
    (top, left), (height, width) = geometry.offset, geometry.size
    image = image[:, top : top + height, left : left + width]
    missing = [0, 0, width - image.shape[2], height - image.shape[1]]
    return F.pad(image, missing, fill=PADDING) if any(missing) else image

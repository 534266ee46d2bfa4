"""From a record to a sample: resize, flip or crop pixels and targets with the same numbers.

Every random number comes from the generator of the sample, so a sample is a pure function of
(seed, epoch, index). A label map gives one target per class (mask classification, Cheng 2021), so
models train on it as on instances.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record
from segsweep.data.geometry import (
    Geometry,
    evaluation_geometry,
    fitted,
    nearest,
    rasterised,
)

PADDING = 128  # grey of what lsj has to add (detectron2's FixedSizeCrop)


@dataclass
class Sample:
    """One image as the network sees it, and its instances, or the regions of its classes.

    `image` (3, h, w) uint8; `labels` (n,) int64; `boxes` (n, 4) cxcywh in parts of (h, w), tight
    around `masks` (n, h, w) bool; `record` is where it came from; `label_map` (h, w) uint8 of a
    semantic image: class, BACKGROUND or IGNORE.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    record: Record
    label_map: Tensor | None = None


def training_geometry(data: DataSet, record: Record, generator: torch.Generator) -> Geometry:
    """Draw how one training image is seen: the flip, then for lsj scale, row and column."""
    draw = torch.rand(4, generator=generator).tolist()
    flip = draw[0] < 0.5
    if data.transform.name == "squash":
        return replace(evaluation_geometry(data, record), flip=flip)
    low, high = data.scale
    resized = fitted(record, data.size, low + (high - low) * draw[1])
    offset = [
        int(part * (max(available - needed, 0) + 1))
        for part, available, needed in zip(draw[2:], resized, data.size, strict=True)
    ]
    size, place = (data.size[0], data.size[1]), (offset[0], offset[1])
    return Geometry(resized, size, place, flip, data.resample)


def training_views(data: DataSet) -> int | None:
    """Return in how many ways `training_geometry` may show an image, None if there is no end."""
    return 2 if data.transform.name == "squash" else None  # as it is, and flipped


def sample(
    pixels: np.ndarray, record: Record, geometry: Geometry, label_map: np.ndarray | None = None
) -> Sample:
    """Apply a geometry to an image (H, W, 3) uint8, and to its instances or its label map (H, W).

    Whatever has no pixel left is left out.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = F.horizontal_flip(image) if geometry.flip else image
    how = InterpolationMode(geometry.resample.value)
    image = cut(F.resize(image, list(geometry.resized), how, antialias=True), geometry)
    if label_map is None:
        labels, stack = instances(record, geometry)
        return Sample(image, labels, tight_boxes(stack), stack, record)
    seen = torch.from_numpy(nearest(label_map, geometry, fill=IGNORE))
    labels, stack = regions(seen)
    return Sample(image, labels, tight_boxes(stack), stack, record, seen)


def instances(record: Record, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return classes and masks of the instances that are no crowd. -> (n,), (n, *size) bool"""
    listed = [a for a in record.annotations if not a.iscrowd]
    labels = torch.tensor([a.category for a in listed], dtype=torch.int64)
    stack = torch.zeros((len(listed), *geometry.size), dtype=torch.bool)
    for mask, instance in zip(stack, listed, strict=True):
        mask[:] = torch.from_numpy(rasterised(instance.segmentation, record, geometry))
    alive = stack.view(torch.uint8).flatten(1).amax(1).bool()
    return labels[alive], stack[alive]


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

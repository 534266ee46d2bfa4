"""From a record to a sample: resize, flip or crop pixels and targets with the same numbers.

Every random number comes from the generator of the sample, so a sample is a pure function of
(seed, epoch, index). Polygons are scaled first and rasterised in the frame of the sample, as the
originals do: their edges stay exact at any scale, and no mask of the full image is ever held. RLEs
and label maps have no edges but pixels; they are resized by nearest neighbour. A label map gives
one target per class (mask classification, Cheng 2021), so models train on it as on instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record, Segmentation
from segsweep.data.formats import masks

PADDING = 128  # grey of what lsj has to add (detectron2's FixedSizeCrop)


@dataclass
class Sample:
    """One image as the network sees it, and its instances, or the regions of its classes.

    `image` (3, h, w) uint8; `labels` (n,) int64; `boxes` (n, 4) cxcywh in parts of (h, w), tight
    around `masks` (n, h, w) bool; `record` is where it came from.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    record: Record


@dataclass(frozen=True)
class Geometry:
    """Maybe flip, resize to `resized`, then cut `size` at `offset`, padding what is missing."""

    resized: tuple[int, int]  # height, width
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)  # row, column
    flip: bool = False


def training_geometry(data: DataSet, record: Record, generator: torch.Generator) -> Geometry:
    """Draw how one training image is seen: the flip, then for lsj scale, row and column."""
    draw = torch.rand(4, generator=generator).tolist()
    flip = draw[0] < 0.5
    height, width = data.size
    if data.transform.name == "squash":
        return Geometry((height, width), (height, width), flip=flip)
    low, high = data.scale
    resized = fitted(record, data.size, low + (high - low) * draw[1])
    offset = [
        int(part * (max(available - needed, 0) + 1))
        for part, available, needed in zip(draw[2:], resized, data.size, strict=True)
    ]
    return Geometry(resized, (height, width), (offset[0], offset[1]), flip)


def training_views(data: DataSet) -> int | None:
    """Return in how many ways `training_geometry` may show an image, None if there is no end."""
    return 2 if data.transform.name == "squash" else None  # as it is, and flipped


def evaluation_geometry(data: DataSet, record: Record) -> Geometry:
    """Return the fixed resize of evaluation: to `size` for squash, into it for lsj."""
    height, width = data.size
    resized = (height, width) if data.transform.name == "squash" else fitted(record, data.size)
    return Geometry(resized, resized)


def fitted(record: Record, size: list[int], factor: float = 1.0) -> tuple[int, int]:
    """Return the largest (h, w) of the image's aspect ratio within `factor` times `size`."""
    scale = factor * min(size[0] / record.height, size[1] / record.width)
    return max(round(record.height * scale), 1), max(round(record.width * scale), 1)


def sample(
    pixels: np.ndarray, record: Record, geometry: Geometry, label_map: np.ndarray | None = None
) -> Sample:
    """Apply a geometry to an image (H, W, 3) uint8, and to its instances or its label map (H, W).

    Whatever has no pixel left is left out.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = F.horizontal_flip(image) if geometry.flip else image
    image = cut(F.resize(image, list(geometry.resized), antialias=True), geometry)
    if label_map is None:
        labels, stack = instances(record, geometry)
    else:
        labels, stack = regions(label_map, geometry)
    return Sample(image, labels, tight_boxes(stack), stack, record)


def instances(record: Record, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return classes and masks of the instances that are no crowd. -> (n,), (n, *size) bool"""
    listed = [a for a in record.annotations if not a.iscrowd]
    labels = torch.tensor([a.category for a in listed], dtype=torch.int64)
    stack = torch.zeros((len(listed), *geometry.size), dtype=torch.bool)
    for mask, instance in zip(stack, listed, strict=True):
        mask[:] = rasterised(instance.segmentation, record, geometry)
    alive = stack.view(torch.uint8).flatten(1).amax(1).bool()
    return labels[alive], stack[alive]


def regions(label_map: np.ndarray, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return the classes that are seen and where each is. (H, W) uint8 -> (n,), (n, *size) bool

    What is unknown, or padded, belongs to no mask.
    """
    values = torch.from_numpy(nearest(label_map, geometry, fill=IGNORE))
    labels = values.unique()
    labels = labels[labels < BACKGROUND]
    return labels.long(), values == labels[:, None, None]


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


def rasterised(segmentation: Segmentation, record: Record, geometry: Geometry) -> Tensor:
    """Return an instance as the sample shows it. -> (*size) bool"""
    if isinstance(segmentation, dict):
        whole = masks.to_mask(segmentation, (record.height, record.width))
        return torch.from_numpy(nearest(whole, geometry))
    (top, left), (height, width) = geometry.offset, geometry.resized
    across, down = width / record.width, height / record.height
    scale = (-across if geometry.flip else across, down)
    shift = (width - left if geometry.flip else -left, -top)
    mask = masks.to_mask(masks.moved(segmentation, scale, shift), geometry.size)
    mask[max(height - top, 0) :] = False  # what an annotator drew beyond the image
    mask[:, max(width - left, 0) :] = False
    return torch.from_numpy(mask)


def nearest(whole: np.ndarray, geometry: Geometry, fill: int = 0) -> np.ndarray:
    """Take each pixel of a sample from the pixel of the image below its centre. (H, W) -> (*size)

    `fill` is the value of padding.
    """
    rows, columns = (
        (2 * np.arange(offset, min(offset + size, resized)) + 1) * original // (2 * resized)
        for offset, size, resized, original in zip(
            geometry.offset, geometry.size, geometry.resized, whole.shape, strict=True
        )
    )
    columns = whole.shape[1] - 1 - columns if geometry.flip else columns
    pixels = np.full(geometry.size, fill, whole.dtype)
    pixels[: len(rows), : len(columns)] = whole[np.ix_(rows, columns)]
    return pixels

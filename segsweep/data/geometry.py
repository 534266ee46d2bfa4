"""Where an image lies in the frame of the network, and what its masks are there.

Polygons are scaled first and rasterised in the frame of the sample, as the originals do: their
edges stay exact at any scale, and no mask of the full image is ever held. RLEs and label maps have
no edges but pixels; they are resized by nearest neighbour. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.data.base import DataSet, Record, Resample, Segmentation

if TYPE_CHECKING:
    import numpy as np

DIVISOR = 32  # of the padded frame: the stride of the coarsest feature map
Size = tuple[int, int]  # (height, width)
View = tuple[Size, Size, Size]  # an image as the network saw it, with padding, at original size
MARGIN = 8 / 7  # of the shorter side to the part in the middle that is evaluated: 256 / 224


@dataclass(frozen=True)
class Geometry:
    """Maybe flip, resize to `resized`, then cut `size` at `offset`, padding what is missing."""

    resized: tuple[int, int]  # height, width
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)  # row, column
    flip: bool = False
    resample: Resample = Resample["bilinear"]  # of pixels, with antialias


def evaluation_geometry(data: DataSet, record: Record) -> Geometry:
    """Return the fixed resize of evaluation: an image as a whole, of `part` the middle."""
    resized = resize(data, record)
    if data.transform.name != "part":
        return Geometry(resized, resized, resample=data.resample)
    size = data.size[0], data.size[1]
    offset = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    return Geometry(resized, size, offset, resample=data.resample)


def resize(data: DataSet, record: Record, factor: float = 1.0) -> Size:
    """Return the size to which an image is resized, `factor` of it drawn where that is random."""
    if data.transform.name == "squash":
        return data.size[0], data.size[1]
    if data.transform.name == "lsj":
        return fitted(record, data.size, factor)
    if data.transform.name == "part":
        return covering(record, data.size)
    return rescaled(record, data.size, factor if data.transform.name == "crop" else 1.0)


def evaluation_frame(data: DataSet) -> Size:
    """Return a height and width that hold every image of evaluation."""
    boxed = data.transform.name in ("squash", "lsj", "part")
    height, width = data.size if boxed else [max(data.size)] * 2
    return height, width


def resize_in_words(data: DataSet) -> str:
    """Say to what evaluation resizes an image, for those who have to do it themselves."""
    height, width = data.size
    if data.transform.name == "squash":
        return f"height {height}, width {width}"
    if data.transform.name == "lsj":
        return f"fit into height {height}, width {width}, aspect ratio kept"
    if data.transform.name == "part":
        return (
            f"8/7 of the least that covers height {height}, width {width}, aspect ratio kept, of "
            "which the middle of that size is taken"
        )
    short, long = sorted(data.size)
    return f"a long side of at most {long}, a short one of at most {short}, aspect ratio kept"


def fitted(record: Record, size: list[int], factor: float = 1.0) -> Size:
    """Return the largest (h, w) of the image's aspect ratio within `factor` times `size`."""
    scale = factor * min(size[0] / record.height, size[1] / record.width)
    return max(round(record.height * scale), 1), max(round(record.width * scale), 1)


def covering(record: Record, size: list[int]) -> Size:
    """Return the (h, w) of the image's aspect ratio that is MARGIN of the least to cover `size`."""
    scale = MARGIN * max(size[0] / record.height, size[1] / record.width)
    return round(record.height * scale), round(record.width * scale)


def rescaled(record: Record, sides: list[int], factor: float = 1.0) -> Size:
    """Return the largest (h, w) of the image's aspect ratio by two sides, upright or lying.

    Its longer side is within `factor` times the longer of the two, its shorter one within the
    shorter; rounded as mmcv's `rescale_size` does.
    """
    short, long = sorted(int(side * factor) for side in sides)
    height, width = record.height, record.width
    scale = min(long / max(height, width), short / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def rasterised(segmentation: Segmentation, record: Record, geometry: Geometry) -> np.ndarray:
    """Return an instance as the sample shows it. -> (*size) bool"""
    from segsweep.data.formats import masks

    if isinstance(segmentation, dict):
        whole = masks.to_mask(segmentation, (record.height, record.width))
        return nearest(whole, geometry)
    (top, left), (height, width) = geometry.offset, geometry.resized
    across, down = width / record.width, height / record.height
    scale = (-across if geometry.flip else across, down)
    shift = (width - left if geometry.flip else -left, -top)
    mask = masks.to_mask(masks.moved(segmentation, scale, shift), geometry.size)
    mask[max(height - top, 0) :] = False  # what an annotator drew beyond the image
    mask[:, max(width - left, 0) :] = False
    return mask


def nearest(whole: np.ndarray, geometry: Geometry, fill: int = 0) -> np.ndarray:
    """Take each pixel of a sample from the pixel of the image below its centre. (H, W) -> (*size)

    `fill` is the value of padding.
    """
    import numpy as np

    rows, columns = (
        (2 * np.arange(offset, min(offset + size, resized)) + 1) * original // (2 * resized)
        for offset, size, resized, original in zip(
            geometry.offset, geometry.size, geometry.resized, whole.shape, strict=True
        )
    )
    columns = whole.shape[1] - 1 - columns if geometry.flip else columns
    pixels = np.full(geometry.size, fill, whole.dtype)
    pixels[: len(rows), : len(columns)] = whole[:, columns][rows]  # faster than both at once
    return pixels

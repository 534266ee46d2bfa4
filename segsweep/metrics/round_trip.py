"""Annotations through the input size and back: what is left of them at the original size.

Down as evaluation resizes what it shows the network; up by bilinear interpolation and a threshold
at one half, as masks of a model come back. Only the pixels around an object are made, column by
column as RLEs run, so large pictures cost no more than their objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segsweep.data.base import BACKGROUND, IGNORE
from segsweep.data.geometry import Geometry, nearest, rasterised

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import Annotation, Record

CELLS = 2**22  # pixels that are interpolated at once

Prediction = dict[str, Any]
"""An object in the COCO form, with contiguous classes."""


def prediction(annotation: Annotation, rle: dict[str, Any], score: float) -> Prediction:
    """Return a mask as a prediction of an annotated object.

    What is a box alone comes back as it is: numbers are learnt, whatever the pixels are.
    """
    from segsweep.data.formats import masks

    box = annotation.bbox if annotation.segmentation is None else masks.bbox(rle)
    what = {"category_id": annotation.category, "score": score}
    return what | {"bbox": box, "segmentation": rle}


def unchanged(record: Record) -> list[Prediction]:
    """Return the objects of an image as they are annotated, all of them sure."""
    from segsweep.data.formats import masks

    size = (record.height, record.width)
    objects = [a for a in record.annotations if not a.iscrowd]
    return [prediction(a, masks.to_rle(a.shape, size), 1.0) for a in objects]


def brought_back(
    record: Record, geometry: Geometry, by_masks: bool = True
) -> list[Prediction | None]:
    """Return each object as it comes back, as sure as it is right (IoU of its mask or of its box).

    None stands where nothing does. What has pixels at the input size but none when it is brought
    back has a score of 0.
    """
    import hotcoco

    from segsweep.data.formats import masks

    size, results = (record.height, record.width), []
    for annotation in (a for a in record.annotations if not a.iscrowd):
        mask = rasterised(annotation.shape, record, geometry)
        if not mask.any():
            results.append(None)
            continue
        back = prediction(annotation, enlarged(mask, size), 0.0)
        pair: Any = (back["segmentation"], masks.to_rle(annotation.shape, size))
        pair = pair if by_masks else (back["bbox"], annotation.bbox)
        iou = hotcoco.mask.iou([pair[0]], [pair[1]], [False])
        results.append(back | {"score": float(iou[0][0])})
    return results


def map_brought_back(label_map: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, int, int]:
    """Return a label map as it comes back, how many classes it has, and how many of them vanish.

    (H, W) uint8 -> (H, W) uint8. Where nobody labelled, anything is right.
    """
    import numpy as np

    small = nearest(label_map, geometry, fill=IGNORE)
    size = (label_map.shape[0], label_map.shape[1])
    back = nearest(small, Geometry(size, size))
    back = np.where(back == IGNORE, label_map, back)
    classes = np.unique(label_map[label_map < BACKGROUND])
    return back, len(classes), len(np.setdiff1d(classes, small))


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Return the RLE of a mask with pixels, (h, w) bool, interpolated to `size`."""
    import numpy as np

    from segsweep.data.formats import masks

    rows, columns = (_taps(np.any(mask, 1 - axis), side) for axis, side in enumerate(size))
    edges = np.concatenate([*_edges(mask, rows, columns, size[0]), []]).astype(np.int64)
    places, times = np.unique(edges, return_counts=True)
    places = places[times == 1]  # a column that ends where the next one begins goes on
    runs = np.diff(places, prepend=0, append=size[0] * size[1])
    return masks.to_rle({"size": list(size), "counts": runs.tolist()}, size)


def _taps(used: np.ndarray, side: int) -> tuple[np.ndarray, ...]:
    """Return which of `side` new pixels see used old ones: places, both neighbours, weights."""
    import numpy as np

    old = np.clip((np.arange(side) + 0.5) * (len(used) / side) - 0.5, 0, len(used) - 1)
    low = old.astype(np.int64)
    high = np.minimum(low + 1, len(used) - 1)
    first, last = np.flatnonzero(used)[[0, -1]]
    places = np.flatnonzero((high >= first) & (low <= last))
    return places, low[places], high[places], (old - low)[places].astype(np.float32)


def _edges(
    mask: np.ndarray, rows: tuple[np.ndarray, ...], columns: tuple[np.ndarray, ...], height: int
) -> Iterator[np.ndarray]:
    """Yield where runs begin and end, counted down the columns of an image of that height."""
    import numpy as np

    places, low, high, part = rows
    if not len(places) or not len(columns[0]):
        return
    seen, low, high, part = mask[low[0] : high[-1] + 1], low - low[0], high - low[0], part[:, None]
    parts = -(-len(columns[0]) * len(places) // CELLS)
    for some in zip(*(np.array_split(column, parts) for column in columns), strict=True):
        at, left, right, share = some
        across = seen[:, left] * (1 - share) + seen[:, right] * share  # (h, n)
        values = across[low] * (1 - part) + across[high] * part > 0.5
        changes = np.diff(np.pad(values, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
        column, row = np.nonzero(changes)
        yield at[column] * height + places[0] + row

"""COCO average precision of masks and of boxes, in percent (Lin 2014).

hotcoco does the matching and gives the numbers of pycocotools. Images are matched as they come, so
what stays in memory is scores and matches, no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import within
from segsweep.metrics.base import Metric

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet, Record
    from segsweep.data.loader import Batch
    from segsweep.model.found import Instances

KINDS = {"segm": "mask", "bbox": "box"}
SIZES = ("s", "m", "l")  # areas below 32^2, below 96^2, from 96^2 pixels on
ENDS = ("AP", "AP50", "AP75", *(f"AP{size}" for size in SIZES))


def quantities_of(*kinds: str) -> dict[str, str]:
    """Return what the values of some of KINDS measure, by name."""
    return {f"{kind}_{end}": f"{KINDS[kind]} {end}" for kind in kinds for end in ENDS}


@dataclass
class CocoAP(Metric):
    """AP, AP50, AP75 and AP by size of masks and boxes; `max_dets` counts per image and class."""

    kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)
    quantities = quantities_of(*kinds)
    values = dict.fromkeys(quantities, ("%", "higher"))

    key: str = "segm_AP"
    max_dets: int = within(100, least=1)

    def protocol(self) -> str:
        """Return "COCO", and how many detections count where it is not 100."""
        return "COCO" if self.max_dets == 100 else f"COCO maxDets {self.max_dets}"

    @property
    def limits(self) -> dict[str, int]:
        """How many objects of a class count in an image, by the key that says it."""
        return {"metrics.max_dets": self.max_dets}

    def evaluator(self, data: DataSet, split: str) -> CocoEvaluator:
        """Return an empty evaluator for a split."""
        return CocoEvaluator(data, split, self.kinds, self.max_dets)


@dataclass
class CocoBoxes(CocoAP):
    """The same of boxes alone, which needs no masks.

    Sizes are by the areas of the annotations: of masks, or of boxes where there are no others.
    """

    kinds: ClassVar[tuple[str, ...]] = ("bbox",)
    quantities = quantities_of(*kinds)
    values = dict.fromkeys(quantities, ("%", "higher"))
    masks: ClassVar[bool] = False

    key: str = "bbox_AP"


class CocoEvaluator:
    """Ground truth of a split, met by predictions image by image: by masks, boxes, or both."""

    def __init__(
        self, data: DataSet, split: str, kinds: Sequence[str] = CocoAP.kinds, max_dets: int = 100
    ) -> None:
        from hotcoco import Params, StreamingEval

        self.records = {record.image_id: record for record in data.records(split)}
        categories = [{"id": k, "name": name} for k, name in enumerate(data.classes())]
        self.streams: dict[str, StreamingEval] = {}
        for kind in kinds:
            params = Params(kind)
            params.max_dets = [1, min(10, max_dets), max_dets]
            self.streams[kind] = StreamingEval(categories, kind, params=params)
        self.classes = data.classes()
        self.truths = 0  # so far; ids of ground truth count from 1, as 0 means "no match"

    def update(self, batch: Batch, instances: list[Instances]) -> None:
        """Take in the predictions for the images of a batch, at their original sizes."""
        for image_id, predictions in zip(batch.image_ids, instances, strict=True):
            self.add(image_id, predictions.coco)

    def add(self, image_id: int, predicted: list[dict[str, Any]]) -> None:
        """Take in one image and its predictions, in the COCO form but with contiguous classes."""
        record = self.records[image_id]
        size = {"height": record.height, "width": record.width}
        truth = truths(record, self.truths + 1)
        self.truths += len(truth)
        for kind, stream in self.streams.items():
            # with one form only, the area of a prediction is that of its mask or that of its box
            other = "bbox" if kind == "segm" else "segmentation"
            entries = [{**entry, "image_id": image_id} for entry in predicted]
            for entry in entries:
                entry.pop(other, None)
            stream.update([{"id": image_id, **size}], truth, entries)

    def compute(self) -> dict[str, float | None]:
        """Return all values in percent over the images so far.

        None where there is no ground truth of that size, 0 where nothing of it was found.
        """
        values: dict[str, float | None] = {}
        for kind, precision in self._precision.items():
            of_all_sizes = precision[..., 0]
            values[f"{kind}_AP"] = mean(of_all_sizes)
            values[f"{kind}_AP50"] = mean(of_all_sizes[0])
            values[f"{kind}_AP75"] = mean(of_all_sizes[5])
            for place, size in enumerate(SIZES, start=1):
                values[f"{kind}_AP{size}"] = mean(precision[..., place])
        return values

    def each_class(self) -> list[dict[str, Any]]:
        """Return AP of each class, of masks and boxes; see `base.of_classes`."""
        precision = self._precision
        return [
            {"class": name} | {f"{kind}_AP": mean(p[:, :, k, 0]) for kind, p in precision.items()}
            for k, name in enumerate(self.classes)
        ]

    @cached_property
    def _precision(self) -> dict[str, np.ndarray]:
        """Precision of masks and of boxes, -1 where there is no ground truth.

        (thresholds, recalls, classes, areas). Once: a stream that has answered is spent.
        """
        precision = {}
        for kind, stream in self.streams.items():
            evaluated = stream.finalize()
            evaluated.accumulate()
            assert evaluated.eval is not None
            precision[kind] = evaluated.eval["precision"][..., -1]
        return precision


def truths(record: Record, first: int) -> list[dict[str, Any]]:
    """Return the annotations of an image in the COCO form, numbered from `first` on.

    What is a box alone has no segmentation.
    """
    from segsweep.data.formats import masks

    entries: list[dict[str, Any]] = []
    for number, a in enumerate(record.annotations, start=first):
        entry: dict[str, Any] = {
            "id": number,
            "image_id": record.image_id,
            "category_id": a.category,
        }
        entry |= {"bbox": a.bbox, "area": a.area, "iscrowd": int(a.iscrowd)}
        if a.segmentation is not None:
            rle = masks.to_rle(a.segmentation, (record.height, record.width))
            entry["segmentation"] = rle
        entries.append(entry)
    return entries


def mean(precision: np.ndarray) -> float | None:
    """Return the mean in percent of the entries that are defined, or None if none is."""
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else None

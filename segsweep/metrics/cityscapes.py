"""Average precision of masks by the rules of the Cityscapes benchmark, in percent (Cordts 2016).

Other rules than COCO's, other numbers on the same masks, hence names of their own: an object is
found at IoU > t (strictly), all predictions count, what lies mostly in void, groups or objects
under 100 pixels is ignored, and the area under the precision-recall curve is taken as it is.

An image is matched when it comes; what stays in memory is a score and ten verdicts per prediction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from segsweep.metrics.base import Metric

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import Annotation, DataSet, Record
    from segsweep.data.loader import Batch
    from segsweep.model.found import Instances

SMALLEST = 100  # pixels; smaller objects are neither to be found nor wrong to find
FALSE, TRUE, IGNORED = 0, 1, -1


class Verdicts(NamedTuple):
    """The predictions of a class in an image: n of them, judged at T thresholds."""

    truths: int  # objects that were to be found
    scores: np.ndarray  # (n,)
    verdicts: np.ndarray  # (T, n) of TRUE, FALSE, IGNORED


@dataclass
class CityscapesAP(Metric):
    """AP, the mean over classes and the IoUs 0.5, 0.55 .. 0.95; AP50 at the first of them."""

    quantities = {"cityscapes_AP": "mask AP", "cityscapes_AP50": "mask AP50"}
    values = dict.fromkeys(quantities, ("%", "higher"))
    rules = "Cityscapes"

    key: str = "cityscapes_AP"

    def evaluator(self, data: DataSet, split: str) -> CityscapesEvaluator:
        """Return an empty evaluator for a split."""
        return CityscapesEvaluator(data, split)


class CityscapesEvaluator:
    """Ground truth of a split, met by predictions image by image."""

    def __init__(self, data: DataSet, split: str) -> None:
        self.classes = data.classes()
        self.records = {record.image_id: record for record in data.records(split)}
        self.matches: list[list[Verdicts]] = [[] for _ in self.classes]

    def update(self, batch: Batch, instances: list[Instances]) -> None:
        """Take in the predictions for the images of a batch, at their original sizes."""
        for image_id, predictions in zip(batch.image_ids, instances, strict=True):
            self.add(image_id, predictions.coco)

    def add(self, image_id: int, predicted: list[dict[str, Any]]) -> None:
        """Take in one image and its predictions, in the COCO form but with contiguous classes."""
        record = self.records[image_id]
        truths: dict[int, list[Annotation]] = defaultdict(list)
        guesses: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in record.annotations:
            truths[annotation.category].append(annotation)
        for entry in predicted:
            guesses[entry["category_id"]].append(entry)
        for category in truths.keys() | guesses.keys():
            self.matches[category].append(match(record, truths[category], guesses[category]))

    def by_class(self) -> np.ndarray:
        """Return AP in percent, nan where there is nothing to find. (K, T)"""
        import numpy as np

        values = [average_precision(matches) for matches in self.matches]
        return 100 * np.array(values).reshape(-1, len(thresholds()))

    def each_class(self) -> list[dict[str, Any]]:
        """Return both values of each class; see `base.of_classes`."""
        return [
            {"class": name, "cityscapes_AP": _known(values), "cityscapes_AP50": _known(values[:1])}
            for name, values in zip(self.classes, self.by_class(), strict=True)
        ]

    def compute(self) -> dict[str, float | None]:
        """Return all values in percent over the images so far; None if there is nothing to find."""
        import numpy as np

        values = self.by_class()
        defined = values[~np.isnan(values[:, 0])]
        if not len(defined):
            return {"cityscapes_AP": None, "cityscapes_AP50": None}
        values50 = defined[:, 0]
        return {"cityscapes_AP": float(defined.mean()), "cityscapes_AP50": float(values50.mean())}


def _known(values: np.ndarray) -> float | None:
    """Return the mean of values that are all defined, or None."""
    mean = float(values.mean())
    return None if mean != mean else mean


def thresholds() -> np.ndarray:
    """Return the ten IoUs, to the last bit those of the official program. (T,)"""
    import numpy as np

    return np.arange(0.5, 1.0, 0.05)


def match(record: Record, truths: list[Annotation], guesses: list[dict[str, Any]]) -> Verdicts:
    """Measure and judge the predictions of one class in one image; empty ones do not count."""
    import numpy as np

    from segsweep.data.formats import masks

    size = record.height, record.width
    guesses = sorted(guesses, key=lambda g: g["score"], reverse=True)
    coded = [(g["score"], masks.to_rle(g["segmentation"], size)) for g in guesses]
    visible = [(score, rle) for score, rle in coded if masks.area(rle)]
    predicted = [rle for _, rle in visible]
    true = [masks.to_rle(t.shape, size) for t in truths]
    void = [] if record.void is None else [masks.to_rle(record.void, size)]

    area = np.array([masks.area(rle) for rle in predicted], int)  # (n,)
    large = np.array([masks.area(rle) for rle in true], int)  # (m,)
    group, small = np.array([t.iscrowd for t in truths], bool), large < SMALLEST
    valid = ~group & ~small
    shared = masks.intersections(predicted, true)  # (n, m)
    # pixels that excuse a false positive; a small group counts twice, as in the official program
    excused = masks.intersections(predicted, void).sum(1) + shared @ (group * 1 + small)
    verdicts = judge(shared, area, large, valid, excused)
    return Verdicts(int(valid.sum()), np.array([score for score, _ in visible]), verdicts)


def judge(
    shared: np.ndarray, area: np.ndarray, large: np.ndarray, valid: np.ndarray, excused: np.ndarray
) -> np.ndarray:
    """Return the verdicts on n predictions, the best first, that share pixels with m objects.

    (n, m), (n,), (m,), (m,), (n,) -> (T, n). Of several predictions of a valid object the best is
    true, the others are false. One that meets no object at all is false unless more than t of it
    is excused. From 0.5 on, a prediction meets one object only, as objects do not overlap.
    """
    import numpy as np

    limits = thresholds()[:, None]
    meets = shared / (area[:, None] + large - shared) > limits[..., None]  # (T, n, m)
    hits = meets & valid
    best = (hits & (hits.cumsum(1) == 1)).any(2)
    wrong = hits.any(2) | ~meets.any(2) & (excused / area <= limits)
    return np.select([best, wrong], [TRUE, FALSE], IGNORED)


def average_precision(matches: list[Verdicts]) -> np.ndarray:
    """Return the areas under the precision-recall curves of a class, nan without objects. (T,)

    Predictions of one score are one point of the curve; it begins at recall 0, precision 1.
    """
    import numpy as np

    truths = sum(m.truths for m in matches)
    if not truths:
        return np.full(len(thresholds()), np.nan)
    scores = np.concatenate([m.scores for m in matches])
    order = np.argsort(-scores)
    verdicts = np.concatenate([m.verdicts for m in matches], axis=1)[:, order]
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of equal scores
    true = (verdicts == TRUE).cumsum(1)[:, ends]
    counted = (verdicts != IGNORED).cumsum(1)[:, ends]
    precision = np.pad(true / np.maximum(counted, 1), ((0, 0), (1, 0)), constant_values=1)
    precision[:, 1:][counted == 0] = 1  # nothing but ignored ones so far
    recall = np.pad(true / truths, ((0, 0), (1, 0)))
    return ((precision[:, 1:] + precision[:, :-1]) / 2 * np.diff(recall)).sum(1)

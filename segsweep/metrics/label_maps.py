"""What metrics of label maps share: how truth and prediction of each image meet.

Both have the original size of the image, or that which the network sees (`at=input`): there truth
is the pixel below the centre, as in training, and a map is resized once less. Pixels that nobody
labelled (IGNORE) count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import neutral
from segsweep.base.errors import Unfit, UserError
from segsweep.data.base import IGNORE
from segsweep.data.geometry import Size, evaluation_geometry, nearest
from segsweep.metrics.base import Metric

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet, Record
    from segsweep.data.loader import Batch
    from segsweep.model.family import Family
    from segsweep.model.found import SemanticMap


PIXELS = 2**20  # that are counted at once
At = Enum("At", {"original": "original", "input": "input"})

Measures = Mapping[str, Sequence[float]]
"""What a metric keeps of one image beside the counts of its pixels, by name."""


@dataclass(frozen=True)
class JudgedMap:
    """The label map predicted for one image, and how it meets the truth.

    Metrics follow from counts and measures, so the map itself is made only when it is asked for.
    """

    labels: Callable[[], np.ndarray]  # (H, W) uint8: class or BACKGROUND
    pixels: np.ndarray  # (K + 1, K + 1), see `confusion`
    measures: Measures

    def measure(self, name: str, length: int = 1) -> Sequence[float]:
        """Return a measure of so many numbers. Raises UserError where none was kept."""
        values = self.measures.get(name, ())
        if len(values) != length:
            raise UserError(f"no {name} was kept of the label maps: another metric judged them")
        return values


class LabelMaps:
    """Hands truth and prediction of one image after the other to `add`."""

    def __init__(self, data: DataSet, split: str) -> None:
        self.data = data
        self.records = {record.image_id: record for record in data.records(split)}

    def update(self, batch: Batch, maps: list[SemanticMap]) -> list[JudgedMap]:
        """Take in the predictions for the images of a batch, in its order; return them judged."""
        judged = []
        for image_id, semantic in zip(batch.image_ids, maps, strict=True):
            predicted = semantic.label_map(self.data.background).cpu().numpy()
            truth = truth_at(self.data, self.records[image_id], predicted.shape)
            judged.append(self.judge(truth, predicted, semantic.scores.cpu().numpy()))
            self.add(image_id, judged[-1])
        return judged

    def judge(self, truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> JudgedMap:
        """Compare two label maps (H, W) uint8, with the scores (H, W) of the best classes."""
        pixels = confusion(truth, predicted, len(self.data.classes()))
        return JudgedMap(lambda: predicted, pixels, self.measures(truth, scores))

    def measures(self, truth: np.ndarray, scores: np.ndarray) -> Measures:
        """Return what does not follow from the counts of pixels."""
        return {}

    def add(self, image_id: int, judged: JudgedMap) -> None:
        """Take in one image."""
        raise NotImplementedError


def truth_at(data: DataSet, record: Record, size: Size) -> np.ndarray:
    """Return a label map at the size of its picture, or at that which the network sees. (h, w)"""
    whole = data.label_map(record)
    return whole if whole.shape == size else nearest(whole, evaluation_geometry(data, record))


@dataclass
class MapMetric(Metric):
    """A metric of label maps; `at` says at which size of an image they are compared."""

    tasks: ClassVar[tuple[str, ...]] = ("semantic",)

    at: At = neutral(At["original"])

    @property
    def at_input(self) -> bool:
        """Whether maps are compared at the size that the network sees."""
        return self.at is At["input"]

    def protocol(self) -> str:
        """Return the rules, and that they hold at the size of the input where they do."""
        return f"{self.rules} at the input's size" if self.at_input else self.rules


@dataclass
class BinaryMetric(MapMetric):
    """A metric of sets with one class, the foreground."""

    def check(self, data: DataSet, model: Family) -> None:
        """Raise Unfit for a data set with several classes, or without label maps."""
        super().check(data, model)
        if len(data.classes()) != 1:
            raise Unfit(
                f"metrics={self.name} judges one foreground, but data={data.name} has "
                f"{len(data.classes())} classes; choose metrics=miou"
            )


class PixelCounts(LabelMaps):
    """Counts the pixels of each image; `values` of all counts (N, 4) are the result.

    The counts are true positives, false positives, false negatives and true negatives.
    """

    def __init__(
        self,
        data: DataSet,
        split: str,
        values: Callable[[np.ndarray], dict[str, float | None]],
    ) -> None:
        super().__init__(data, split)
        self.values = values
        self.counts: list[list[int]] = []

    def add(self, image_id: int, judged: JudgedMap) -> None:
        """Count the pixels of one image."""
        (hits, misses), (false_alarms, rejections) = judged.pixels.tolist()
        self.counts.append([hits, false_alarms, misses, rejections])

    def compute(self) -> dict[str, float | None]:
        """Return all values over the images so far; None where there were none."""
        import numpy as np

        return self.values(np.array(self.counts, np.float64).reshape(-1, 4))


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the labelled pixels of two label maps by their classes, the background at last.

    (H, W) uint8 -> (K + 1, K + 1), rows are those of truth. Some rows of pixels at a time: numbers
    to count by have eight times the size of labels.
    """
    import numpy as np

    side = classes + 1
    counts = np.zeros(side**2, np.int64)
    step = max(1, PIXELS // truth.shape[1])
    for top in range(0, len(truth), step):
        rows = slice(top, top + step)
        known = truth[rows] != IGNORE
        true, found = (
            np.minimum(x[rows][known], classes).astype(np.int64) for x in (truth, predicted)
        )
        counts += np.bincount(true * side + found, minlength=side**2)
    return counts.reshape(side, side)


def percent(values: np.ndarray) -> float | None:
    """Return the mean in percent of the values that are defined (no nan), None if none is."""
    defined = values[values == values]
    return 100 * float(defined.mean()) if defined.size else None

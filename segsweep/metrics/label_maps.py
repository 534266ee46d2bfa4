"""What metrics of label maps share: how truth and prediction of each image meet.

Both have the original size of the image. Pixels that nobody labelled (IGNORE) count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.errors import UserError
from segsweep.metrics.base import Metric

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet
    from segsweep.data.loader import Batch
    from segsweep.task.semantic import SemanticMap


class LabelMaps:
    """Hands truth and prediction of one image after the other to `add`."""

    def __init__(self, data: DataSet, split: str) -> None:
        self.data = data
        self.records = {record.image_id: record for record in data.records(split)}

    def update(self, batch: Batch, maps: list[SemanticMap]) -> None:
        """Take in the predictions for the images of a batch, in its order."""
        for image_id, semantic in zip(batch.image_ids, maps, strict=True):
            predicted = semantic.label_map(self.data.background).cpu().numpy()
            truth = self.data.label_map(self.records[image_id])
            self.add(truth, predicted, semantic.scores.cpu().numpy())

    def add(self, truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> None:
        """Take in two label maps (H, W) uint8, and the scores (H, W) of the best classes."""
        raise NotImplementedError


class BinaryMetric(Metric):
    """A metric of sets with one class, the foreground."""

    tasks: ClassVar[tuple[str, ...]] = ("semantic",)

    def check(self, data: DataSet) -> None:
        """Raise UserError for a data set with several classes, or without label maps."""
        super().check(data)
        if len(data.classes()) != 1:
            raise UserError(
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

    def add(self, truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> None:
        """Count the pixels of one image; see `LabelMaps`."""
        import numpy as np

        from segsweep.data.base import IGNORE

        known = truth != IGNORE
        true, positive = truth[known] == 0, predicted[known] == 0
        both = np.bincount(2 * true + positive, minlength=4)  # by truth, then by prediction
        self.counts.append([int(both[k]) for k in (3, 1, 2, 0)])

    def compute(self) -> dict[str, float | None]:
        """Return all values over the images so far; None where there were none."""
        import numpy as np

        return self.values(np.array(self.counts, np.float64).reshape(-1, 4))


def percent(values: np.ndarray) -> float | None:
    """Return the mean in percent of the values that are defined (no nan), None if none is."""
    defined = values[values == values]
    return 100 * float(defined.mean()) if defined.size else None

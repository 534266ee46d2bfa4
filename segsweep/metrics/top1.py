"""Top-1 accuracy in percent: the share of pictures whose best class is the true one.

top1          of all pictures
top1_classes  the mean over the classes that have pictures, each the share of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.metrics.base import Metric

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.data.loader import Batch
    from segsweep.model.found import PictureClass

Labelled = tuple[int, float]
"""What is kept of a picture: its best class, and the probability of that."""


@dataclass
class Top1(Metric):
    """Accuracy of a set that tells the class of each picture."""

    tasks: ClassVar[tuple[str, ...]] = ("label",)
    masks: ClassVar[bool] = False
    values = dict.fromkeys(("top1", "top1_classes"), ("%", "higher"))
    quantities = {"top1": "top-1 accuracy", "top1_classes": "top-1 accuracy by class"}
    rules = "one class a picture"

    key: str = "top1"

    def evaluator(self, data: DataSet, split: str) -> Accuracy:
        """Return an empty evaluator for a split."""
        return Accuracy(data, split)


class Accuracy:
    """Right ones among the pictures of each class."""

    def __init__(self, data: DataSet, split: str) -> None:
        from segsweep.data.labelled import class_of

        self.names = data.classes()
        self.truth = {record.image_id: class_of(record) for record in data.records(split)}
        self.right, self.pictures = ([0] * len(self.names) for _ in range(2))

    def update(self, batch: Batch, found: list[PictureClass]) -> list[Labelled]:
        """Take in what was found on the images of a batch; return it as it is kept."""
        labelled = [each.best for each in found]
        for image_id, best in zip(batch.image_ids, labelled, strict=True):
            self.add(image_id, best)
        return labelled

    def add(self, image_id: int, best: Labelled) -> None:
        """Take in one image."""
        truth = self.truth[image_id]
        self.pictures[truth] += 1
        self.right[truth] += best[0] == truth

    def each_class(self) -> list[dict[str, Any]]:
        """Return pictures and accuracy of each class; see `base.of_classes`."""
        rows = zip(self.names, self.right, self.pictures, strict=True)
        return [{"class": name, "top1": share(right, n)} for name, right, n in rows]

    def compute(self) -> dict[str, float | None]:
        """Return both values over the images so far, None where there were none."""
        known = [row["top1"] for row in self.each_class() if row["top1"] is not None]
        mean = sum(known) / len(known) if known else None
        return {"top1": share(sum(self.right), sum(self.pictures)), "top1_classes": mean}


def share(part: int, whole: int) -> float | None:
    """Return a share in percent, None of nothing."""
    return 100 * part / whole if whole else None

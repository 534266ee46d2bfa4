"""Mean IoU and accuracies of classes, in percent, from one confusion matrix over the set.

    IoU(c) = n_cc / (t_c + p_c - n_cc)      Acc(c) = n_cc / t_c

n_cc are pixels of class c that are found, t_c all pixels of c, p_c all that are said to be c. mIoU
and mAcc are means over the classes, aAcc is the share of all pixels that are right. Names say what
the background is: with `_fg` no class, neither in the means nor among the pixels of aAcc (as for
ADE20K; taking background for a class still counts in its p_c); with `_bg` a class like others (as
in Trans10K, where published tables mix both). A class that neither truth nor prediction has is left
out, as mmsegmentation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import Unfit
from segsweep.metrics.label_maps import JudgedMap, LabelMaps, MapMetric, percent

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet
    from segsweep.model.family import Family


@dataclass
class MIoU(MapMetric):
    """mIoU, mAcc and aAcc of a semantic set, without background (_fg) and with it (_bg)."""

    values = {
        f"{name}_{ending}": ("%", "higher")
        for ending in ("fg", "bg")
        for name in ("mIoU", "mAcc", "aAcc")
    }
    rules = "confusion matrix over the set"

    key: str = "mIoU_fg"

    def check(self, data: DataSet, model: Family) -> None:
        """Raise Unfit for a set that is not semantic, or lacks the background that counts."""
        super().check(data, model)
        if self.key.endswith("_bg") and not data.background:
            raise Unfit(
                f"metrics.key={self.key}: data={data.name} has no background; choose "
                f"{self.key.replace('_bg', '_fg')}"
            )

    def evaluator(self, data: DataSet, split: str) -> Confusion:
        """Return an empty evaluator for a split."""
        return Confusion(data, split)


class Confusion(LabelMaps):
    """Pixels by true and by predicted class; the last row and column are the background."""

    def __init__(self, data: DataSet, split: str) -> None:
        import numpy as np

        super().__init__(data, split)
        self.classes = len(data.classes())
        self.pixels = np.zeros((self.classes + 1, self.classes + 1), np.int64)

    def add(self, image_id: int, judged: JudgedMap) -> None:
        """Count the pixels of one image."""
        self.pixels += judged.pixels

    def each_class(self) -> list[dict[str, Any]]:
        """Return IoU and Acc of each class, at last of the background; see `base.of_classes`."""
        names = [*self.data.classes(), *(["background"] if self.data.background else [])]
        columns = (values.reshape(-1, 1) for values in by_class(self.pixels))
        return [
            {"class": name, "IoU": percent(iou), "Acc": percent(accuracy)}
            for name, iou, accuracy in zip(names, *columns, strict=False)
        ]

    def compute(self) -> dict[str, float | None]:
        """Return all values over the images so far; None where there is nothing to count."""
        values: dict[str, float | None] = {}
        iou, accuracy = by_class(self.pixels)
        for ending, count in {"fg": self.classes, "bg": self.classes + 1}.items():
            known = ending == "fg" or self.data.background
            right, pixels = self.pixels.diagonal()[:count].sum(), self.pixels[:count].sum()
            values[f"mIoU_{ending}"] = percent(iou[:count]) if known else None
            values[f"mAcc_{ending}"] = percent(accuracy[:count]) if known else None
            values[f"aAcc_{ending}"] = 100 * float(right / pixels) if known and pixels else None
        return values


def by_class(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and accuracy of each class and of the background, nan where nothing is.

    (K + 1, K + 1) -> 2 x (K + 1,)
    """
    import numpy as np

    right, true, positive = pixels.diagonal(), pixels.sum(1), pixels.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is what is not defined
        return right / (true + positive - right), right / true

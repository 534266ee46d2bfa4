"""What a metric is: names with unit and direction, and an evaluator that is fed batch by batch.

A value has a name of its own, the quantity that it measures ("mask AP") and the protocol by which
it is computed. Tables ask for quantities; values of one quantity but of different protocols (COCO
and Cityscapes AP) are not comparable, so records and tables carry both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from segsweep.base.config import Choice, words
from segsweep.base.errors import Unfit, UserError

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.data.loader import Batch
    from segsweep.model.family import Family


class Evaluator(Protocol):
    """One evaluation of one split.

    Most also have `add(image_id, predicted)`, which takes one image in the form that is kept, of
    instances the COCO form, of label maps `JudgedMap`: results from kept predictions come by it,
    and ceilings. Those of several classes have `each_class()`, see `of_classes`.
    """

    def update(self, batch: Batch, predictions: list[Any], /) -> list[Any] | None:
        """Take in what a model found on the images of a batch, in its order.

        Return it in the form that is kept; None where the COCO form is.
        """
        ...

    def compute(self) -> dict[str, float | None]:
        """Return all values over the images so far; None where a value is not defined."""
        ...


def of_classes(evaluator: Evaluator) -> list[dict[str, Any]]:
    """Return what an evaluator says of each class over the images so far; nothing, if it cannot.

    One dict per class, in the order of the data: its name as "class", and values in percent whose
    means over classes `compute` returns, None where a value is not defined.
    """
    return getattr(evaluator, "each_class", list)()


@dataclass
class Metric(Choice):
    """A family of values; `key` is the one that decides which checkpoint is the best."""

    key: str = ""

    tasks: ClassVar[tuple[str, ...]] = ("instances",)  # that it can judge
    masks: ClassVar[bool] = True  # it asks for masks of instances; else boxes alone are enough
    values: ClassVar[Mapping[str, tuple[str, str]]] = {}  # see `names`
    quantities: ClassVar[Mapping[str, str]] = {}  # see `quantity`
    rules: ClassVar[str] = ""  # see `protocol`

    def __post_init__(self) -> None:
        """Refuse a key that is none of the values."""
        if self.key not in self.names():
            raise UserError(f"metrics.key={self.key}: must be one of {', '.join(self.names())}")

    def check(self, data: DataSet, model: Family) -> None:
        """Raise Unfit for a data set and for a model whose results this metric cannot judge."""
        if data.task in self.tasks and (model.masks or not self.masks):
            return
        judges = [
            (word, metric)
            for word, metric in words("metrics").items()
            if issubclass(metric, Metric) and data.task in metric.tasks
        ]
        if data.task not in self.tasks:
            from segsweep.task.base import kind

            judged = " or ".join(kind(task).finds for task in self.tasks)
            raise Unfit(
                f"metrics={self.name} judges {judged}, but data={data.name} has "
                f"{kind(data.task).finds} (choices: {', '.join(word for word, _ in judges)})"
            )
        fitting = (f"metrics={word}" for word, metric in judges if not metric.masks)
        raise Unfit(
            f"metrics={self.name} judges masks, but model={model.name} finds boxes alone; "
            f"choose {' or '.join(fitting)}"
        )

    @property
    def at_input(self) -> bool:
        """Whether images are judged at the size that the network sees, not at their own."""
        return False

    def framed(self, batch: Batch) -> Batch:
        """Return a batch of evaluation whose images have the sizes at which they are judged."""
        return replace(batch, original_sizes=batch.sizes) if self.at_input else batch

    def names(self) -> dict[str, tuple[str, str]]:
        """Return unit and direction ("higher" or "lower" is better) of each value by its name."""
        return dict(self.values)

    @classmethod
    def quantity(cls, name: str) -> str:
        """Return what a value measures, as tables ask for it: "mask AP"; by default its name."""
        return cls.quantities.get(name, name)

    def protocol(self) -> str:
        """Return by which rules the values are computed: "COCO", "Cityscapes", ..."""
        return self.rules

    @property
    def limits(self) -> dict[str, int]:
        """How many objects of a class count in an image, by the keys that say it."""
        return {}

    def evaluator(self, data: DataSet, split: str) -> Evaluator:
        """Return an empty evaluator for a split of a data set."""
        raise NotImplementedError

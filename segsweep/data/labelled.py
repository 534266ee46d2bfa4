"""Sets that tell the class of each picture, not where in it anything is.

A picture's class is kept as the one object that fills it, a box alone: files, splits, counts and
batches of such sets are those of any set. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Collection

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.geometry import Size


def filling(category: int, size: Size, number: int = 0) -> Annotation:
    """Return the class of a picture of a size (height, width)."""
    height, width = size
    return Annotation(category, None, [0, 0, width, height], float(height * width), id=number)


def class_of(record: Record) -> int:
    """Return the class of a picture."""
    return record.annotations[0].category


def check_classes(data: DataSet, train: Collection[int], val: Collection[int]) -> None:
    """Raise UserError where the classes of the pictures of both splits teach nothing to judge."""
    names, word = data.classes(), f"data={data.name}"
    if len(names) < 2:
        raise UserError(f"{word}: has one class, {names[0]}; there is nothing to tell it from")
    if len(names) > len(train):
        raise UserError(
            f"{word}: has {len(names)} classes, but train only {len(train)} pictures; take at "
            "least one of each class, or fewer classes"
        )
    if unseen := [names[k] for k in sorted({*val} - {*train})]:
        raise UserError(
            f"{word}: val has pictures of {', '.join(unseen)}, of which train has none; give train "
            "some, or take them out of val"
        )

"""The task of labels: the class of a picture as a whole."""

from __future__ import annotations

from typing import ClassVar

from segsweep.task.base import Task


class LabelTask(Task):
    """Finds the best class of each image."""

    finds: ClassVar[str] = "classes of pictures"
    placed: ClassVar[bool] = False

    @classmethod
    def schema(cls, masks: bool) -> int:
        """Return 4."""
        return 4


TASK = LabelTask

"""The semantic task: the class of every pixel."""

from __future__ import annotations

from typing import ClassVar

from segsweep.task.base import Task


class SemanticTask(Task):
    """Finds the best class of every pixel of each image."""

    finds: ClassVar[str] = "label maps"
    dense: ClassVar[bool] = True

    @classmethod
    def schema(cls, masks: bool) -> int:
        """Return 2."""
        return 2


TASK = SemanticTask

"""The semantic task: the class of every pixel."""

from __future__ import annotations

from typing import ClassVar

from segsweep.task.base import Task


class SemanticTask(Task):
    """Finds the best class of every pixel of each image."""

    finds: ClassVar[str] = "label maps"
    schema: ClassVar[int] = 2
    dense: ClassVar[bool] = True


TASK = SemanticTask

"""The task of instances: scored masks and boxes of single objects, or boxes alone."""

from __future__ import annotations

from typing import ClassVar

from segsweep.task.base import Task


class InstanceTask(Task):
    """Finds the best instances of each image."""

    finds: ClassVar[str] = "instances"

    @classmethod
    def schema(cls, masks: bool) -> int:
        """Return 1, or 3 of boxes alone."""
        return 1 if masks else 3


TASK = InstanceTask

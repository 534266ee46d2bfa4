"""The task of instances: scored masks and boxes of single objects."""

from __future__ import annotations

from typing import ClassVar

from segsweep.task.base import Task


class InstanceTask(Task):
    """Finds the best instances of each image."""

    finds: ClassVar[str] = "instances"
    schema: ClassVar[int] = 1


TASK = InstanceTask

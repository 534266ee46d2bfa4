"""What a task is: what is learnt of a picture, and what is found.

A task is one file: its name is the word that data sets declare (`DataSet.task`), its `TASK` the
class. General code asks that class, not the word, what the task can do. How it is read off the raw
outputs of a model, the model's head knows.
"""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar


class Task:
    """What general code must know of a task."""

    finds: ClassVar[str]  # in words
    dense: ClassVar[bool] = False  # every pixel gets a class, or none where sets have background
    placed: ClassVar[bool] = True  # what is found lies somewhere in the picture

    @classmethod
    def schema(cls, masks: bool) -> int:
        """Return that of the file of predictions of a run, whose model finds masks or does not.

        See run.lines.
        """
        raise NotImplementedError


def kind(word: str) -> type[Task]:
    """Return the class of a task."""
    return import_module(f"segsweep.task.{word}").TASK

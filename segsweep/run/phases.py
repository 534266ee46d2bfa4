"""How long the parts of a run take."""

from __future__ import annotations

from typing import ClassVar

from segsweep.base.process import age
from segsweep.base.turns import clock


class Phases:
    """Seconds by phase: `with phases("train"): ...`.

    That of `start`, imports for the most part, is known where a process is there for one run.
    """

    process_began: ClassVar[float | None] = None  # by perf_counter; the first run pays for it

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = now = clock()
        if Phases.process_began is not None:
            self._begun, Phases.process_began = Phases.process_began, None
            self.seconds["start"] = round(now - self._begun, 3)

    @classmethod
    def from_process(cls) -> None:
        """Count the next run from when this process began."""
        cls.process_began = clock() - age()

    def __call__(self, name: str) -> Phases:
        """Name the phase that the following block is."""
        self._name = name
        return self

    def __enter__(self) -> None:
        """Start the clock."""
        self._start = clock()

    def __exit__(self, *_: object) -> None:
        """Stop the clock."""
        self.seconds[self._name] = round(clock() - self._start, 3)

    def total(self) -> dict[str, float]:
        """Return all phases and the total."""
        return self.seconds | {"total": round(clock() - self._begun, 3)}

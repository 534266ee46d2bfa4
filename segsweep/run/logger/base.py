"""What a view of the curve is. `logger=none` is this base: it shows nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segsweep.base.config import Choice

if TYPE_CHECKING:
    from segsweep.run.identity import Run


class View:
    """Receives each line of metrics.jsonl; does nothing with it."""

    def log(self, line: dict[str, Any]) -> None:
        """Show one line."""

    def close(self) -> None:
        """Finish."""


@dataclass
class Logger(Choice):
    """A word of the group `logger`."""

    def open(self, run: Run) -> View:
        """Open the view of a run; whatever goes wrong must not stop the run."""
        return View()

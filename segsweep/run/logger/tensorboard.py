"""TensorBoard as a view of the curve: `tensorboard --logdir results/runs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.run.logger.base import Logger, View

if TYPE_CHECKING:
    from segsweep.run.identity import Run


@dataclass
class TensorBoard(Logger):
    """`logger=tensorboard`: event files in the run's directory."""

    def open(self, run: Run) -> View:
        """Open the event file.

        Raises UserError when TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            cure = "pip install 'segsweep[tensorboard]'"
            raise UserError(f"logger=tensorboard needs TensorBoard: {cure}") from error
        return TensorBoardView(SummaryWriter(str(run.directory / "tensorboard")))


class TensorBoardView(View):
    """An open event file."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, line: dict[str, Any]) -> None:
        """Write one line's numbers."""
        for key, value in line.items():
            if key not in ("step", "time"):
                self.writer.add_scalar(key, value, line["step"])

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()

"""The embedded scenes as label maps: at each pixel the class of the digit that is on top there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from segsweep.data.base import BACKGROUND, Record
from segsweep.data.sets.digits import Digits

if TYPE_CHECKING:
    import numpy as np


@dataclass
class DigitsSemantic(Digits):
    """Label maps of the scenes of one domain; all that is no digit is background.

    What shows of a digit counts however little it is; as an instance it may be left out.
    """

    task: ClassVar[str] = "semantic"
    pictures_of: ClassVar[str] = "digits"

    def label_map(self, record: Record) -> np.ndarray:
        """Return the label map of a scene. (side, side) uint8: class or BACKGROUND"""
        import numpy as np

        values = np.array([*self.categories(), BACKGROUND], np.uint8)
        return values[self.scene(record.file).digits]  # -1, no digit, is the last

    def categories(self) -> Sequence[int]:
        """Return the value of each digit that the domain shows."""
        from segsweep.data.sets.domains import DOMAINS

        return DOMAINS[self.domain.name].category

    def fingerprint(self) -> str:
        """Return a hash of what is drawn, and of what its label maps say."""
        content = (super().fingerprint(), *self.categories())
        return sha256(repr(content).encode()).hexdigest()[:12]

    def _record(self, number: int, file: str) -> Record:
        return Record(number, file, self.side, self.side, [], labels=file)

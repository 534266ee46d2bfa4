"""One family of strokes against everything else: other digits, too, are background.

All that is drawn can be told from the background by its colour; which of the digits have a loop
cannot, so that a model that knows strokes is worth more than one that starts from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from segsweep.data.base import BACKGROUND
from segsweep.data.sets.digits_semantic import DigitsSemantic


class FamilyName(Enum):
    """Families of strokes."""

    loop = "loop"  # 0 6 8 9
    bar = "bar"  # 1 7
    bow = "bow"  # 2 3 5
    fork = "fork"  # 4


@dataclass
class DigitsBinary(DigitsSemantic):
    """Label maps of one class: the digits of a family in the scenes of one domain."""

    shown: ClassVar[dict[str, str]] = {"domain": "{}", "family": "{}"}

    family: FamilyName = FamilyName.loop

    def classes(self) -> list[str]:
        """Return the name of the family."""
        return [self.family.name]

    def categories(self) -> Sequence[int]:
        """Return the value of each digit: 0 of those in the family."""
        from segsweep.data.sets.domains import FAMILIES, FAMILY

        chosen = FAMILIES.index(self.family.name)
        return [0 if family == chosen else BACKGROUND for family in FAMILY]

"""What is found in a table: contradictions, how sure they are, and what would end them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from segsweep.audit.cells import PrintedCell

CUT = " Digits that were cut off, not rounded, would explain it."


class Certainty(StrEnum):
    """How sure a finding is, surest first."""

    CERTAIN = "certain"  # impossible, whatever was rounded or cut
    LIKELY = "likely"  # also what is right if digits were cut off, not rounded
    DEFINITION = "definition"  # right, each by another definition
    UNCLEAR = "unclear"
    EXPLAINED = "explained"  # digits that are not printed suffice: told, but not a finding

    @classmethod
    def unless(cls, cut: bool) -> Certainty:
        """Return how sure a broken equality is; `cut`: it holds if digits were cut off."""
        return cls.LIKELY if cut else cls.CERTAIN


@dataclass(frozen=True)
class Contradiction:
    """A contradiction, the cells that take part, and the smallest changes that would end it."""

    certainty: Certainty
    cells: Sequence[PrintedCell]
    printed: str
    follows: str
    explanation: str
    corrections: Sequence[str] = ()
    source: str = ""  # of a claim: where it stands
    table: str = ""
    rule: str = ""  # of those in rules.py: which found it
    id: str = field(default="", compare=False)

    @property
    def place(self) -> tuple[str, str]:
        """Source and table."""
        first = self.cells[0] if self.cells else None
        source = self.source or (first.source if first else "")
        return source, self.table or (first.table if first else "")

    def plain(self) -> dict[str, Any]:
        """Return the finding as JSON knows it."""
        source, table = self.place
        return {
            "id": self.id,
            "source": source,
            "table": table,
            "rule": self.rule,
            "certainty": self.certainty.value,
            "printed": self.printed,
            "follows": self.follows,
            "corrections": list(self.corrections),
            "explanation": self.explanation,
            "cells": [
                {
                    "line": cell.line,
                    "model": cell.model,
                    "backbone": cell.backbone,
                    "method": cell.method,
                    "method_params": dict(cell.params),
                    "dataset": cell.dataset,
                    "metric": cell.metric,
                    "value": cell.text,
                }
                for cell in self.cells
            ],
        }

"""What the audit finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from segsweep.audit.cells import Cell


class Certainty(StrEnum):
    """How sure a finding is, surest first."""

    CERTAIN = "certain"  # impossible, whatever was rounded or cut
    LIKELY = "likely"
    DEFINITION = "definition"  # right, each by another definition
    UNCLEAR = "unclear"
    EXPLAINED = "explained"  # rounded or cut digits suffice: told, but not a finding


@dataclass(frozen=True)
class Finding:
    """A contradiction, the cells that take part, and the smallest changes that would end it."""

    rule: str
    certainty: Certainty
    cells: Sequence[Cell]
    printed: str
    follows: str
    explanation: str
    corrections: Sequence[str] = ()
    source: str = ""  # of a claim: where it stands
    table: str = ""
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

"""Numbers known to be misprinted, and tables with their misprints mended."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from segsweep.audit.cells import Cell
from segsweep.audit.finding import Certainty, Finding
from segsweep.base.errors import UserError

COLUMNS = ("source", "table", "model", "backbone", "method", "metric", "value")


def misprints(cells: Sequence[Cell], path: Path) -> Iterator[Finding]:
    """Numbers that a recount contradicts, from a list; without a column `certainty` all certain.

    Raises:
        UserError: the list lacks a column, or names a cell that is not there.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lines = [(reader.line_num, line) for line in reader]
        needed = (*COLUMNS, "method_params", "correct", "reason")
        if missing := [name for name in needed if name not in (reader.fieldnames or [])]:
            raise UserError(f"{path}: has no column {', '.join(missing)}")
    for number, line in lines:
        try:
            params = tuple(sorted(json.loads(line["method_params"] or "{}").items()))
            certainty = Certainty(line.get("certainty") or "certain")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        place = [line[name] for name in COLUMNS]
        cell = next((c for c in cells if (c.params, _place(c)) == (params, place)), None)
        if cell is None:
            raise UserError(f"{path}, line {number}: no cell {' · '.join(place)} in the table")
        yield Finding(
            rule="recount",
            certainty=certainty,
            cells=[cell],
            printed=cell.text,
            follows=line["correct"],
            corrections=[f"{cell.text} → {line['correct']}"],
            explanation=f"Counted again: {line['reason']}.",
        )


def _place(cell: Cell) -> list[str]:
    named = cell.source, cell.table, cell.model, cell.backbone, cell.method, cell.metric
    return [*named, cell.text]


def mended(cells: Sequence[Cell], found: Sequence[Finding]) -> list[Cell]:
    """Return the cells with every certain misprint of one cell corrected."""
    right: dict[Cell, str] = {}
    for finding in found:
        if finding.rule in ("mean", "recount") and finding.certainty == Certainty.CERTAIN:
            old, _, new = finding.corrections[0].partition(" → ")
            if len(finding.corrections) == 1 and Fraction(old) == finding.cells[0].value:
                right[finding.cells[0]] = new
    return [cell.now(right[cell]) if cell in right else cell for cell in cells]

"""All rules over a table of published numbers, and what they find in it.

Every printed number stands for an interval, so a finding is never a matter of rounding. Beside the
table may lie `claims.csv`, sentences of the text to hold against the cells, `misprints.csv`,
numbers known to be wrong from a count that the table does not show, and `roles.csv`, what its
methods train and add.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from segsweep.audit import bounds, counts, means, relations
from segsweep.audit.cells import ROLES, Certainty, Contradiction, PrintedCell, read, table
from segsweep.audit.claims import claims, read_claims
from segsweep.base.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
REPORTED, INSTALLED = PACKAGE.parent / "results" / "reported" / "reported.csv", PACKAGE / "reported"
MISPRINTED = ("source", "table", "model", "backbone", "method", "metric", "value")
RULES: dict[str, Callable[[Sequence[PrintedCell]], Iterable[Contradiction]]] = {
    "mean": means.means,
    "delta": means.deltas,
    "share": counts.shares,
    "growth": counts.growth,
    "column": counts.columns,
    "repeated": counts.repeated,
    "totals": counts.totals,
    "added": counts.added,
    "range": bounds.ranges,
    "precision": bounds.precision,
    "accuracy": bounds.accuracy,
    "overlap": bounds.overlap,
    "speed": bounds.speed,
    "relation": relations.relations,
    "superset": relations.supersets,
    "time": relations.times,
    "copy": relations.copies,
    "mark": relations.marks,
}
"""The first line of their docstrings says what each holds."""


def audit(path: Path) -> list[Contradiction]:
    """Read one table, with what lies beside it, and return all findings with their ids.

    Raises:
        UserError: a file cannot be read, or a claim speaks of cells that are not there.
    """
    places = (path.parent, REPORTED.parent, INSTALLED)
    roles = next((place / ROLES for place in places if (place / ROLES).exists()), None)
    cells = read(path, roles)
    findings = [finding for name, rule in RULES.items() for finding in _by(name, rule(cells))]
    if (known := path.with_name("misprints.csv")).exists():
        unsaid = [m for m in misprints(cells, known) if not _is_found(m, findings)]
        findings += _by("recount", unsaid)
    if (stated := path.with_name("claims.csv")).exists():
        sentences = claims(read_claims(stated), cells, mended(cells, findings))
        findings += _by("claim", sentences)
    return numbered(_without_echoes(findings))


def _by(rule: str, findings: Iterable[Contradiction]) -> list[Contradiction]:
    return [replace(finding, rule=rule) for finding in findings]


def _without_echoes(findings: Sequence[Contradiction]) -> list[Contradiction]:
    """Drop what is only odd where the same cell is already impossible: one cause, one finding."""
    impossible = {
        cell
        for finding in findings
        if finding.certainty == Certainty.CERTAIN and finding.rule != "claim"
        for cell in finding.cells
    }
    return [
        finding
        for finding in findings
        if finding.certainty != Certainty.UNCLEAR
        or finding.rule == "claim"
        or not impossible.intersection(finding.cells)
    ]


def numbered(findings: Iterable[Contradiction]) -> list[Contradiction]:
    """Return findings by source, table and certainty, each with an id such as `000-2a-mean-1`."""
    counts, order, result = Counter[str](), list(Certainty), []
    for finding in sorted(findings, key=lambda f: (*f.place, order.index(f.certainty), f.rule)):
        place = "-".join((*finding.place, finding.rule)).lower()
        start = re.sub(r"[^a-z0-9]+", "-", place).strip("-")
        counts[start] += 1
        result.append(replace(finding, id=f"{start}-{counts[start]}"))
    return result


def misprints(cells: Sequence[PrintedCell], path: Path) -> Iterator[Contradiction]:
    """Numbers that a recount contradicts, from a list; without a column `certainty` all certain.

    Raises:
        UserError: the list lacks a column, or names a cell that is not there.
    """
    for number, line in table(path, (*MISPRINTED, "method_params", "correct", "reason")):
        try:
            params = tuple(sorted(json.loads(line["method_params"] or "{}").items()))
            certainty = Certainty(line.get("certainty") or "certain")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        place = [line[name] for name in MISPRINTED]
        cell = next((c for c in cells if (c.params, _place(c)) == (params, place)), None)
        if cell is None:
            raise UserError(f"{path}, line {number}: no cell {' · '.join(place)} in the table")
        yield Contradiction(
            certainty=certainty,
            cells=[cell],
            printed=cell.text,
            follows=line["correct"],
            corrections=[f"{cell.text} → {line['correct']}"],
            explanation=f"Counted again: {line['reason']}.",
        )


def _is_found(misprint: Contradiction, findings: Sequence[Contradiction]) -> bool:
    """Say whether a rule comes to the correction by itself."""
    of_cell = (finding for finding in findings if misprint.cells[0] in finding.cells)
    corrections = (correction for finding in of_cell for correction in finding.corrections)
    return any(correction.endswith(misprint.corrections[0]) for correction in corrections)


def _place(cell: PrintedCell) -> list[str]:
    named = cell.source, cell.table, cell.model, cell.backbone, cell.method, cell.metric
    return [*named, cell.text]


def mended(cells: Sequence[PrintedCell], findings: Sequence[Contradiction]) -> list[PrintedCell]:
    """Return the cells with every certain misprint of one cell corrected."""
    right: dict[PrintedCell, str] = {}
    for finding in findings:
        if finding.rule in ("mean", "recount") and finding.certainty == Certainty.CERTAIN:
            old, _, new = finding.corrections[0].partition(" → ")
            if len(finding.corrections) == 1 and Fraction(old) == finding.cells[0].value:
                right[finding.cells[0]] = new
    return [cell.now(right[cell]) if cell in right else cell for cell in cells]

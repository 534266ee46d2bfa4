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

from segsweep.audit import bounds, counts, deltas, grim, layout, means, relations
from segsweep.audit.cells import ROLES, PrintedCell, by, read, table
from segsweep.audit.claims import claims, read_claims
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.leaderboard import is_leaderboard, read_leaderboard
from segsweep.audit.numbers import exactly, short, written
from segsweep.base.errors import UserError
from segsweep.base.package import packaged

REPORTED = packaged("results/reported") / "reported.csv"
ROWS = 3  # with the same two columns exchanged: the columns are
MISPRINTED = ("source", "table", "model", "backbone", "method", "metric", "value")
RULES: dict[str, Callable[[Sequence[PrintedCell]], Iterable[Contradiction]]] = {
    "mean": means.means,
    "delta": deltas.deltas,
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
    "copy": layout.copies,
    "swap": layout.swapped,
    "scale": layout.scales,
    "mark": layout.marks,
    "grim": grim.grim,
}
"""The first line of their docstrings says what each holds."""


LEADERBOARD = {**RULES, "rounding": layout.rounding}


def cells_of(path: Path, items: int | None = None) -> list[PrintedCell]:
    """Return the numbers of a file, one a line or a leaderboard.

    Raises:
        UserError: it cannot be read.
    """
    if is_leaderboard(path):
        return read_leaderboard(path, items)
    places = (path.parent, REPORTED.parent)
    roles = next((place / ROLES for place in places if (place / ROLES).exists()), None)
    return [replace(c, items=c.items or str(items or "")) for c in read(path, roles)]


def audit(path: Path, items: int | None = None) -> list[Contradiction]:
    """Read one table, with what lies beside it, and return all findings with their ids.

    `items` is how many images or the like its shares count, where the table does not say it.

    Raises:
        UserError: a file cannot be read, or a claim speaks of cells that are not there.
    """
    cells, alone = cells_of(path, items), is_leaderboard(path)
    rules = LEADERBOARD if alone else RULES
    findings = [finding for name, rule in rules.items() for finding in _by(name, rule(cells))]
    if not alone and (known := path.with_name("misprints.csv")).exists():
        unsaid = [m for m in misprints(cells, known) if not _is_found(m, findings)]
        findings += _by("recount", unsaid)
    if not alone and (stated := path.with_name("claims.csv")).exists():
        sentences = claims(read_claims(stated), cells, mended(cells, findings))
        findings += _by("claim", sentences)
    return numbered(_without_echoes(_by_column(findings)))


def _by(rule: str, findings: Iterable[Contradiction]) -> list[Contradiction]:
    return [replace(finding, rule=rule) for finding in findings]


def _by_column(findings: Sequence[Contradiction]) -> list[Contradiction]:
    """Tell numbers that stand in each other's column once, if they do so in all rows found.

    Three rows are no accident: their two columns were exchanged.
    """

    def columns(finding: Contradiction) -> tuple[str, ...]:
        swap = next((c for c in finding.corrections if "↔" in c and finding.rule != "swap"), "")
        names = [side.split(" ")[0] for side in swap.split(" ↔ ")]
        return finding.rule, *finding.place, *names

    result = []
    for (*_, name), group in by(findings, columns).items():
        if len(group) < ROWS or not name:
            result += group
            continue
        first = columns(group[0])[-2]
        result.append(
            replace(
                group[0],
                cells=[c for f in group for c in f.cells],
                printed=f"{first} and {name}, {len(group)} rows, such as {group[0].printed}",
                corrections=[f"{first} ↔ {name}, the whole columns"],
                explanation=f"The columns are exchanged. {group[0].explanation}",
            )
        )
    return result


def _without_echoes(findings: Sequence[Contradiction]) -> list[Contradiction]:
    """Drop what is only odd where the same cell is already impossible: one cause, one finding.

    Of a mean and its members only the first is suspected; a copied row is a cause, no echo.
    """
    impossible = {
        cell
        for finding in findings
        if finding.certainty == Certainty.CERTAIN and finding.rule != "claim"
        for cell in (finding.cells[:1] if finding.rule == "mean" else finding.cells)
    }
    return [
        finding
        for finding in findings
        if finding.certainty != Certainty.UNCLEAR
        or finding.rule in ("claim", "copy")
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

    `correct` is what was counted, with all its digits: they tell what was cut off, not rounded.

    Raises:
        UserError: the list lacks a column, or names a cell that is not there.
    """
    for number, line in table(path, (*MISPRINTED, "method_params", "correct", "reason")):
        try:
            params = tuple(sorted(json.loads(line["method_params"] or "{}").items()))
            certainty = Certainty(line.get("certainty") or "certain")
            counted = Fraction(line["correct"])
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        place = [line[name] for name in MISPRINTED]
        cell = next((c for c in cells if (c.params, _place(c)) == (params, place)), None)
        if cell is None:
            raise UserError(f"{path}, line {number}: no cell {' · '.join(place)} in the table")
        cut = cell.interval(cut=True).meets(exactly(counted))
        likely = cut and certainty == Certainty.CERTAIN
        yield Contradiction(
            certainty=Certainty.LIKELY if likely else certainty,
            cells=[cell],
            printed=cell.text,
            follows=short(counted),
            corrections=[f"{cell.text} → {written(counted, cell.text)}"],
            explanation=f"Counted again: {line['reason']}.{CUT * cut}",
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
            cell, (first, *more) = finding.cells[0], finding.corrections
            old, _, new = first.partition(" → ")
            if old == cell.text and not more:
                right[cell] = new
    return [cell.now(right[cell]) if cell in right else cell for cell in cells]

"""The verb `audit`: what a published table says against itself.

    python -m segsweep audit                     the reported numbers of this repository
    python -m segsweep audit mine.csv --strict   a table of one's own; status 1 if anything is found

Every printed number stands for an interval, so a finding is never a matter of rounding. Beside the
table may lie `claims.csv`, sentences of the text to hold against the cells, and `misprints.csv`,
numbers known to be wrong from a count that the table does not show. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from segsweep.audit.cells import Cell
    from segsweep.audit.finding import Finding

REPORTED = Path(__file__).resolve().parents[2] / "results" / "reported" / "reported.csv"
Rule = Callable[[Sequence["Cell"]], Iterable["Finding"]]


def rules() -> list[Rule]:
    """Return all rules over cells; the first line of their docstrings says what each holds."""
    from segsweep.audit import bounds, counts, means, relations

    return [
        *(means.means, means.deltas),
        *(counts.shares, counts.growth, counts.columns, counts.repeated),
        *(counts.totals, counts.added),
        *(bounds.ranges, bounds.precision, bounds.accuracy, bounds.overlap, bounds.speed),
        *(relations.relations, relations.supersets, relations.times),
        *(relations.copies, relations.marks),
    ]


def audit(path: Path) -> list[Finding]:
    """Read one table, with what lies beside it, and return all findings with their ids.

    Raises:
        UserError: a file cannot be read, or a claim speaks of cells that are not there.
    """
    from segsweep.audit.cells import read
    from segsweep.audit.claims import claims, read_claims
    from segsweep.audit.misprints import mended, misprints

    cells = read(path)
    found = [finding for rule in rules() for finding in rule(cells)]
    if (known := path.with_name("misprints.csv")).exists():
        found += misprints(cells, known)
    if (stated := path.with_name("claims.csv")).exists():
        found += claims(read_claims(stated), cells, mended(cells, found))
    return numbered(_without_echoes(found))


def _without_echoes(found: Sequence[Finding]) -> list[Finding]:
    """Drop what is only odd where the same cell is already impossible: one cause, one finding."""
    from segsweep.audit.finding import Certainty

    impossible = {
        cell
        for finding in found
        if finding.certainty == Certainty.CERTAIN and finding.rule != "claim"
        for cell in finding.cells
    }
    return [
        finding
        for finding in found
        if finding.certainty != Certainty.UNCLEAR
        or finding.rule == "claim"
        or not impossible.intersection(finding.cells)
    ]


def numbered(found: Iterable[Finding]) -> list[Finding]:
    """Return findings by source, table and certainty, each with an id such as `000-2a-mean-1`."""
    return list(_numbered(found))


def _numbered(found: Iterable[Finding]) -> Iterator[Finding]:
    from segsweep.audit.finding import Certainty

    seen: dict[str, int] = {}
    order = list(Certainty)
    for finding in sorted(found, key=lambda f: (*f.place, order.index(f.certainty), f.rule)):
        source, table = finding.place
        start = re.sub(r"[^a-z0-9]+", "-", f"{source}-{table}-{finding.rule}".lower()).strip("-")
        seen[start] = seen.get(start, 0) + 1
        yield replace(finding, id=f"{start}-{seen[start]}")


def main(argv: list[str] | None = None) -> int:
    """Print the findings and write them where asked; 1 if there are any and `--strict`."""
    from segsweep.audit import forms
    from segsweep.audit.finding import Certainty

    parser = argparse.ArgumentParser("python -m segsweep audit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, help="tidy CSV (the reported numbers)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write a page with the rules")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything is found")
    options = parser.parse_args(argv)
    if not options.files and not REPORTED.exists():
        raise UserError(f"{REPORTED} lies in the source repository only; name a CSV file")
    files = options.files or [REPORTED]
    found = [finding for path in files for finding in audit(path)]
    forms.show(found)
    if options.json:
        text = json.dumps([finding.plain() for finding in found], indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.md:
        options.md.write_text(forms.page(found, rules()), encoding="utf-8")
    real = [finding for finding in found if finding.certainty != Certainty.EXPLAINED]
    return 1 if options.strict and real else 0

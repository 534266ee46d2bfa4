"""The verb `audit`: what a published table says against itself.

    python -m segsweep audit                     the reported numbers of this repository
    python -m segsweep audit mine.csv --strict   a table of one's own; status 1 if anything is found

Every printed number stands for an interval, so a finding is never a matter of rounding. Beside the
table may lie `claims.csv`, sentences of the text to hold against the cells, and `misprints.csv`,
numbers known to be wrong from a count that the table does not show. Nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.verbs.parser import verb_parser


def main(argv: list[str] | None = None) -> int:
    """Print the findings and write them where asked; 1 if there are any and `--strict`."""
    from segsweep.audit import forms
    from segsweep.audit.rules import REPORTED, RULES, audit

    parser = verb_parser("audit", __doc__)
    parser.add_argument("files", nargs="*", type=Path, help="tidy CSV (the reported numbers)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write a page with the rules")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything is found")
    options = parser.parse_args(argv)
    if not options.files and not REPORTED.exists():
        raise UserError(f"{REPORTED} lies in the source repository only; name a CSV file")
    findings = [finding for path in options.files or [REPORTED] for finding in audit(path)]
    forms.show(findings)
    if options.json:
        text = json.dumps([finding.plain() for finding in findings], indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.md:
        options.md.write_text(forms.page(findings, RULES), encoding="utf-8")
    contradictions, _ = forms.split(findings)
    return 1 if options.strict and contradictions else 0

"""The verb `audit`: what a published table says against itself.

    python -m segsweep audit                     the numbers that the papers printed
    python -m segsweep audit mine.csv --strict   a table of one's own; status 1 if anything is found
    python -m segsweep audit board.csv --items 500   a leaderboard, its accuracies of 500 images

Every printed number stands for an interval, so a finding is never a matter of rounding. Beside the
table may lie `claims.csv`, sentences of the text to hold against the cells, and `misprints.csv`,
numbers known to be wrong from a count that the table does not show. A file with other columns is a
leaderboard: a column of names, columns of numbers, marks as `**bold**` or `\\textbf{}`, `a ± s`.
Nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.base.parser import verb_parser

GROUP = "results"
ALSO = ("claims",)


def main(argv: list[str] | None = None) -> int:
    """Print the findings and write them where asked; 1 if there are any and `--strict`."""
    from segsweep.audit import forms, grim
    from segsweep.audit.leaderboard import is_leaderboard
    from segsweep.audit.rules import REPORTED, RULES, audit, cells_of

    parser = verb_parser("audit", __doc__)
    parser.add_argument("files", nargs="*", type=Path, help="CSV (the papers' numbers)")
    parser.add_argument("--items", type=int, metavar="N", help="images that shares are counted of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write a page with the rules")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything is found")
    options = parser.parse_args(argv)
    if options.items is not None and options.items < 1:
        raise UserError(f"--items is {options.items}: name how many were counted, 1 or more")
    files = options.files or [REPORTED]
    findings = [finding for path in files for finding in audit(path, options.items)]
    forms.show(findings)
    for path in filter(is_leaderboard, files):
        print("\n".join(grim.told(cells_of(path, options.items))))
    if options.json:
        text = json.dumps([finding.plain() for finding in findings], indent=1, ensure_ascii=False)
        write_text(options.json, text + "\n")
    if options.md:
        write_text(options.md, forms.page(findings, RULES))
    contradictions, _ = forms.split(findings)
    return 1 if options.strict and contradictions else 0

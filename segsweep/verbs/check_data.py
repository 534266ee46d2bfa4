"""The verb `check-data`: everything that is wrong with a data set, before anything is trained.

    python -m segsweep check-data path/to/folder                     your own, of whatever program
    python -m segsweep check-data data=coco data.root=path/to/set     any data set
    python -m segsweep check-data train.json --images path            one annotation file
    python -m segsweep check-data data=coco data.root=a --fix b       write a clean copy

Every annotation and every picture is read. What is found is told on the terminal, as JSON, and as
one page with overlays. The status is 1 if training would be refused (`--strict`: also for
warnings), else 0.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from segsweep.base.parser import verb_parser

GROUP = "data"
ALSO = ("check", "dataset", "inspect", "lint", "validate-data", "verify")


def main(argv: list[str] | None = None) -> int:
    """Check a data set; return 1 if training would be refused."""
    parser = verb_parser("check-data", __doc__)
    parser.add_argument("what", nargs="*", help="a folder, one file, or words of the configuration")
    parser.add_argument("--images", type=Path, help="folder of the pictures of a file")
    parser.add_argument("--out", type=Path, help="folder of the report (results/check-data/NAME)")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a clean copy to a new folder"
    )
    parser.add_argument("--strict", action="store_true", help="status 1 for warnings, too")
    parser.add_argument("--workers", type=int, help="threads (one per core, at most 16)")
    parser.add_argument("--quiet", action="store_true", help="no progress display")
    options = parser.parse_args(argv)
    from segsweep.check import report as reports
    from segsweep.check.ceilings import add_ceilings
    from segsweep.check.parts import joined

    config = reports.chosen(options.what, options.images)
    data, started = config.data, time.monotonic()
    looks, pairs = reports.look_at(data, options.workers, options.quiet)
    ceilings = add_ceilings(config, [part for part, _ in looks], options.quiet)
    findings = joined(part for part, _ in looks)
    report = reports.described(data, looks, findings) | {
        "command": shlex.join(["check-data", *(argv if argv is not None else sys.argv[1:])]),
        "ceilings": {name: limit.facts() for name, limit in ceilings.items()},
        "seconds": round(time.monotonic() - started, 1),
    }
    folder = options.out or reports.own_folder(report)
    reports.write(report, findings, looks, pairs, folder)
    reports.show(report, findings, folder)
    if options.fix:
        from segsweep.check.fix import fix

        print(fix(data, looks, options.fix))
    levels = {finding.kind.level for finding in findings}
    return int("fatal" in levels or (options.strict and "warning" in levels))

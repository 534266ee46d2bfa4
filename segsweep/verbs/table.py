"""The verb `table`: one table of `conf/table/`, or of a file, from runs and published numbers.

python -m segsweep table ablation                           in the terminal
python -m segsweep table peft_table2a --origin reported     as published
python -m segsweep table mine.yaml --format tex             a table of one's own
python -m segsweep table all --out tables                   all of them, in all formats
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.files import write_texts
from segsweep.base.parser import add_sources, sources, verb_parser
from segsweep.base.terminal import printer

if TYPE_CHECKING:
    from segsweep.results.frame import Records

GROUP = "results"
ALSO = ("tables", "latex")
USAGE = """\
Prints a table of conf/table/ (or of a yaml file) as it follows from the
records below the results folder and from published numbers. Without a name
the names are listed."""
BOTH = ("reported", "ours")
ORIGINS = {"ours": ("ours",), "reported": ("reported",), "both": BOTH}
FORMATS = ("md", "tex", "html", "csv")  # of results.typeset.FORMS, which imports more


def main(argv: list[str] | None = None) -> int:
    """Print or write tables, or check that a file follows from the records."""
    parser = verb_parser("table", USAGE)
    parser.add_argument("name", nargs="?", help="name in conf/table/, yaml file, or `all`")
    add_sources(parser)
    parser.add_argument("--origin", choices=ORIGINS, default="both", help="default: both")
    parser.add_argument("--format", choices=FORMATS, help="default: for the terminal")
    parser.add_argument("--trace", action="store_true", help="say where each number comes from")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail if FILE does not follow")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write all formats there")
    options = parser.parse_args(argv)
    from segsweep.results import spec

    if options.name is None:
        print("\n".join(f"{name:20} {spec.load(name).heading}" for name in spec.names()))
        return 0
    if options.check and (options.out or options.name == "all"):
        raise UserError("--check: compares one table with one file, so without --out and `all`")
    from segsweep.results import frame, reported

    records = frame.read(*sources(options))
    for path, reason in records.unreadable.items():
        print(f"skipped {path}: {reason}", file=sys.stderr)
    for copies in records.differing:
        print(f"left out {copies}", file=sys.stderr)
    runs = [*reported.read(options.results), *records.runs, *records.bench]
    names = spec.names() if options.name == "all" else [options.name]
    return _each(names, runs, records, options)


def _each(names: Sequence[str], runs: list, records: Records, options: argparse.Namespace) -> int:
    """Build the tables of all names and do with each what was asked for."""
    from segsweep.results import spec, tables, typeset
    from segsweep.results.elsewhere import joined

    for name in names:
        asked = spec.load(name)
        every = joined(asked, runs, records.elsewhere)
        built = tables.build(asked, every, ORIGINS[options.origin])
        records.annotate(built)
        if not built:
            print(f"{name}: no number of {options.origin} origin belongs to it", file=sys.stderr)
        elif options.check:
            return check(built, options.check)
        elif options.out:
            files = typeset.texts(built, options.out / built[0].spec.name)
            write_texts(files)
            print(*(f"wrote {path}" for path in files), sep="\n")
        else:
            _show(built, options.format, options.trace)
    return 1 if options.check else 0


def check(built: list, path: Path) -> int:
    """Return 0 if a file is what the records give, else print the difference and return 1.

    Raises UserError for a file that is not there or of no known format.
    """
    from difflib import unified_diff

    from segsweep.results.typeset import FORMS

    ending = path.suffix.removeprefix(".")
    if ending not in FORMATS:
        raise UserError(f"--check {path}: the ending says the format: {', '.join(FORMATS)}")
    try:
        committed = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--check {path}: cannot be read ({error})") from error
    now = FORMS[ending](built)
    if now == committed:
        print(f"{path} follows from the records")
        return 0
    lines = (committed.splitlines(keepends=True), now.splitlines(keepends=True))
    sys.stdout.writelines(unified_diff(*lines, str(path), "from the records"))
    return 1


def _show(built: list, form: str | None, traced: bool) -> None:
    from segsweep.results.forms import terminal
    from segsweep.results.trace import as_text
    from segsweep.results.typeset import FORMS

    if form:
        print(FORMS[form](built), end="")
    else:
        console = printer()
        for table in built:
            console.print(terminal(table))
    if traced:
        print(as_text(built), end="")

"""The verb `params`: how much each setting of a sweep trains, without weights and without data.

    python -m segsweep params peft=lora peft.rank=2,4,8     counts of these settings
    python -m segsweep params +sweep=table2 --classes 12    counts of a sweep for 12 classes
    python -m segsweep params --check                       published columns, digit by digit
    python -m segsweep params --check 003 peft=lora         of one study, of settings that say so

Models are built on the meta device: shapes only. Where it matters whether the text encoder is a
part of the head, both counts are told, the chosen one first. What is published, for which classes,
and what is known to differ are data in `results/reported/`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segsweep.base.config import Config, class_of, compose
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.base.package import packaged
from segsweep.base.parser import verb_parser
from segsweep.base.terminal import printer
from segsweep.peft.printed import PrintedSize, read_printed
from segsweep.peft.sizes import Bases, SettingSize, sizes

GROUP = "train"
ALSO = ("parameters", "count", "info", "summary")
REPORTED = packaged("results/reported")


def main(argv: list[str] | None = None) -> int:
    """Print the table of the settings asked for; 1 if `--check` finds a difference."""
    from segsweep.sweeps.sweeper import configs

    args = _parser().parse_intermixed_args(argv)
    if args.check:
        return checked(read_printed(args.reported, args.overrides))
    with explained():
        rows = sizes(configs(args.overrides), lambda config: _classes(config, args.classes))
    show(rows)
    return 0


def show(rows: list[SettingSize]) -> None:
    """Print the rows as a table."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table("model", "method", "setting")
    for title in ("classes", "trainable", "total", "M", "%"):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        counts = row.counts
        absolute = f"{counts.trainable:,}", f"{counts.total:,}", f"{counts.trainable / 1e6:.2f}"
        numbers = str(row.classes), *absolute, f"{counts.percent:.2f}"
        package = getattr(class_of("peft", row.peft), "counted_by", "")
        label = f"{row.label} (counted by {package})".strip() if package else row.label
        grid.add_row(row.model, row.peft, escape(label), *numbers)
    printer(width=120).print(grid)


def checked(lines: Sequence[PrintedSize]) -> int:
    """Count published settings and print how they compare; 1 where one is not as its line says."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table("study", "setting")
    for title in ("trainable", "M", "printed", "%", "printed", ""):
        grid.add_column(title, justify="right", no_wrap=True)
    bases, differences = Bases(), list[str]()
    for line in lines:
        computed, trainable = dict[str, str](), ""
        if line.verdict == "open":
            differences += filter(None, [line.mistake()])
        else:
            with explained():
                config = compose([*line.words])
            counts = next(iter(bases.counts(config, line.classes).values()))
            differences += line.differences(counts)
            computed, trainable = line.computed(counts), f"{counts.trainable:,}"
        pairs = [
            said.get(name, "")
            for name in ("params.trainable", "params.percent")
            for said in (computed, line.values)
        ]
        grid.add_row(line.study, escape(" ".join(line.words)), trainable, *pairs, line.verdict)
    printer(width=160).print(grid)
    print(*_summary(lines, differences), sep="\n")
    return 1 if differences else 0


def _summary(lines: Sequence[PrintedSize], differences: Sequence[str]) -> list[str]:
    """Return what is wrong, what is declared, what is open, and how many there are of each."""
    verdicts = Counter(line.verdict for line in lines)
    declared = [f"{line}: {line.reason}" for line in lines if line.verdict == "declared"]
    missing = Counter(line.reason for line in lines if line.verdict == "open")
    studies = ", ".join(dict.fromkeys(line.study for line in lines))
    return [
        *differences,
        *declared,
        *(f"{number} not yet: {reason}" for reason, number in missing.items()),
        f"{studies}: {len(lines) - verdicts['open']} settings compared, {len(differences)} "
        f"differences, {verdicts['declared']} declared, {verdicts['open']} not yet",
    ]


def _classes(config: Config, number: int | None) -> int:
    """Choose the number of classes: the user's, or the data set's."""
    if number:
        return number
    try:
        return len(config.data.classes())
    except UserError as error:
        raise UserError(
            f"{error} (params needs only the number of classes: --classes N)"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = verb_parser("params", __doc__)
    parser.add_argument("overrides", nargs="*", help="as for a sweep, e.g. +sweep=table2")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="as in a sweep's line; implied"
    )
    parser.add_argument("--classes", type=int, help="number of classes; default: the data set's")
    parser.add_argument("--check", action="store_true", help="compare with what is published")
    parser.add_argument("--reported", type=Path, default=REPORTED, help="folder of printed numbers")
    return parser

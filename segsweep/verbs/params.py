"""The verb `params`: how much each setting of a sweep trains, without weights and without data.

    python -m segsweep params peft=lora peft.rank=2,4,8     counts of these settings
    python -m segsweep params +sweep=table2 --classes 12    counts of a sweep for 12 classes
    python -m segsweep params --check                       table 2b of the paper, digit by digit

Models are built on the meta device: shapes only. Where it matters whether the text encoder is a
part of the head, both counts are told, the chosen one first. The published numbers, the class
counts they were printed for and known misprints are data in `results/reported/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segsweep.base.config import Config
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.base.package import packaged
from segsweep.base.parser import verb_parser
from segsweep.base.terminal import printer
from segsweep.peft.printed import PrintedSize, check, read_printed
from segsweep.peft.sizes import SettingSize, sizes

GROUP = "train"
ALSO = ("parameters", "count", "info", "summary")
REPORTED = packaged("results/reported")
SWEEP = "+sweep=table2"
TABLE = [SWEEP, "data.root=any"]  # its settings, each once: data sets have no parameters


def show(rows: list[SettingSize]) -> None:
    """Print the rows as a table."""
    from rich.table import Table

    grid = Table("model", "method", "setting")
    for title in ("classes", "trainable", "total", "M", "%"):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        counts = row.counts
        absolute = f"{counts.trainable:,}", f"{counts.total:,}", f"{counts.trainable / 1e6:.2f}"
        numbers = str(row.classes), *absolute, f"{counts.percent:.2f}"
        grid.add_row(row.model, row.peft, row.label, *numbers)
    printer(width=120).print(grid)


def main(argv: list[str] | None = None) -> int:
    """Print the table of the settings asked for; 1 if `--check` finds a difference."""
    from segsweep.sweeps.sweeper import configs

    args = _parser().parse_intermixed_args(argv)
    printed = read_printed(args.reported) if args.check else []
    overrides = args.overrides or (TABLE if args.check else [])
    with explained():
        rows = sizes(configs(overrides), lambda config: _classes(config, args, printed))
    show(rows)
    if not args.check:
        return 0
    differences = check(rows, printed)
    print(*differences, sep="\n", end="\n" if differences else "")
    known = sum(len(line.misprints) for line in printed)
    print(
        f"table 2b: {len(printed)} settings compared, {len(differences)} differences, "
        f"{known} known misprint(s) in {args.reported / 'misprints.csv'}"
    )
    return 1 if differences else 0


def _classes(config: Config, args: argparse.Namespace, printed: list[PrintedSize]) -> int:
    """Choose the number of classes: the printed line's, the user's, or the data set's."""
    if args.check:
        line = next((line for line in printed if line.means(config)), None)
        if line is None:
            words = f"model={config.model.name} peft={config.peft.name}"
            raise UserError(f"--check: {words} has a setting outside table 2b")
        return line.classes
    if args.classes:
        return args.classes
    try:
        return len(config.data.classes())
    except UserError as error:
        raise UserError(
            f"{error} (params needs only the number of classes: --classes N)"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = verb_parser("params", __doc__)
    parser.add_argument("overrides", nargs="*", help=f"as for a sweep, e.g. {SWEEP}")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="as in a sweep's line; implied"
    )
    parser.add_argument("--classes", type=int, help="number of classes; default: the data set's")
    parser.add_argument("--check", action="store_true", help="compare with the published table 2b")
    parser.add_argument("--reported", type=Path, default=REPORTED, help="folder of printed numbers")
    return parser

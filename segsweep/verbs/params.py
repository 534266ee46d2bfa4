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
import copy
import csv
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, plain
from segsweep.base.errors import UserError
from segsweep.base.explain import explain

if TYPE_CHECKING:
    from segsweep.model.family import Family
    from segsweep.peft.base import Counts

REPORTED = Path(__file__).resolve().parents[2] / "results" / "reported"
SWEEP = "+sweep=table2"
TABLE = [SWEEP, "data.root=any"]  # its settings, each once: data sets have no parameters
METRICS: dict[str, Callable[[Row], float]] = {
    "trainable_params": lambda row: row.counts.trainable / 1e6,
    "trainable_pct_eq10": lambda row: row.counts.percent,
}


@dataclass(frozen=True)
class Row:
    """Counts of one setting; `setting` holds all fields of the method and of the model."""

    model: str
    peft: str
    label: str
    setting: dict[str, Any]
    classes: int
    counts: Counts


@dataclass(frozen=True)
class Printed:
    """One line of a published parameter table, in the words of the command line."""

    model: str
    peft: str
    setting: dict[str, Any]
    classes: int
    values: dict[str, str]
    misprints: dict[str, tuple[str, str]]

    def describes(self, model: str, peft: str, setting: dict[str, Any]) -> bool:
        """Say whether a setting is the one of this line."""
        same = (self.model, self.peft) == (model, peft)
        return same and all(setting.get(key) == value for key, value in self.setting.items())

    def means(self, config: Config) -> bool:
        """Say whether a config, in one of its readings, has the setting of this line."""
        words = config.model.name, config.peft.name
        readings = config.model.readings.values()
        return any(self.describes(*words, _setting(config, reading)) for reading in readings)

    def differences(self, row: Row) -> list[str]:
        """Compare the counts with what is printed, to the digits printed."""
        found = []
        for metric, value in self.values.items():
            printed, correct = self.misprints.get(metric, (value, value))
            decimals = len(value.partition(".")[2])
            computed = f"{METRICS[metric](row):.{decimals}f}"
            if (value, computed) != (printed, correct):
                found.append(f"{self}: {metric} is printed as {value}, computed {computed}")
        return found

    def __str__(self) -> str:
        setting = " ".join(f"{key}={value}" for key, value in self.setting.items())
        return f"{self.model} {self.peft} {setting}".strip()


def table(
    configs: Iterable[tuple[list[str], Config]], classes: Callable[[Config], int]
) -> list[Row]:
    """Count every setting's parameters for as many classes as `classes` says.

    Runs that differ in their data or seed alone are one setting.
    """
    import torch

    from segsweep.peft.base import apply

    bases: dict[str, Any] = {}
    rows: dict[tuple[str, str], list[Row]] = {}
    for overrides, config in configs:
        number = classes(config)
        base, method = json.dumps([plain(config.model), number]), json.dumps(plain(config.peft))
        if (base, method) in rows:
            continue
        if base not in bases:
            with torch.device("meta"):
                bases[base] = config.model.build([f"class {i}" for i in range(number)])
        label = " ".join(word[5:] for word in overrides if word.startswith("peft."))
        words, found = (config.model.name, config.peft.name), []
        for title, reading in config.model.readings.items():
            counts = apply(copy.deepcopy(bases[base]), config.peft, reading.roles)
            setting = _setting(config, reading)
            found.append(Row(*words, f"{label} {title}".strip(), setting, number, counts))
        if len({row.counts for row in found}) == 1:
            found = [replace(found[0], label=label)]
        rows[base, method] = found
    return [row for found in rows.values() for row in found]


def _setting(config: Config, model: Family) -> dict[str, Any]:
    """Return all fields of the method, and of the model as `model.<key>`."""
    fields = {f"model.{key}": value for key, value in plain(model).items()}
    return {**plain(config.peft), **fields}


def read_printed(folder: Path) -> list[Printed]:
    """Read the published table 2b with its class counts and misprints.

    Raises:
        UserError: the folder does not hold the files.
    """
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for line in _read(folder / "reported.csv"):
        if (line["source"], line["table"]) == ("000", "2b"):
            cells.setdefault(_key(line), {})[line["metric"]] = line["value"]
    misprints: dict[tuple[str, ...], dict[str, tuple[str, str]]] = {}
    for line in _read(folder / "misprints.csv"):
        if (line["source"], line["table"]) == ("000", "2b"):
            pair = line["value"], line["correct"]
            misprints.setdefault(_key(line), {})[line["metric"]] = pair
    return [
        Printed(
            model=line["model"],
            peft=line["peft"],
            setting=json.loads(line["setting"]),
            classes=int(line["classes"]),
            values=cells[_key(line)],
            misprints=misprints.get(_key(line), {}),
        )
        for line in _read(folder / "table2b.csv")
    ]


def check(rows: list[Row], printed: list[Printed]) -> list[str]:
    """Compare counts with a published table: one sentence per difference or missing setting."""
    differences = []
    for line in printed:
        row = next((r for r in rows if line.describes(r.model, r.peft, r.setting)), None)
        differences += line.differences(row) if row else [f"{line}: not among the settings"]
    return differences


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    grid = Table("model", "method", "setting")
    for title in ("classes", "trainable", "total", "M", "%"):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        counts = row.counts
        sizes = f"{counts.trainable:,}", f"{counts.total:,}", f"{counts.trainable / 1e6:.2f}"
        numbers = str(row.classes), *sizes, f"{counts.percent:.2f}"
        grid.add_row(row.model, row.peft, row.label, *numbers)
    Console(width=None if sys.stdout.isatty() else 120).print(grid)


def main(argv: list[str] | None = None) -> int:
    """Print the table of the settings asked for; 1 if `--check` finds a difference."""
    from segsweep.sweep.sweeper import configs

    args = _parser().parse_intermixed_args(argv)
    printed = read_printed(args.reported) if args.check else []
    overrides = args.overrides or (TABLE if args.check else [])
    try:
        rows = table(configs(overrides), lambda config: _classes(config, args, printed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
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


def _classes(config: Config, args: argparse.Namespace, printed: list[Printed]) -> int:
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
    parser = argparse.ArgumentParser("segsweep params", description="Trained parameters.")
    parser.add_argument("overrides", nargs="*", help=f"as for a sweep, e.g. {SWEEP}")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="as in a sweep's line; implied"
    )
    parser.add_argument("--classes", type=int, help="number of classes; default: the data set's")
    parser.add_argument("--check", action="store_true", help="compare with the published table 2b")
    parser.add_argument("--reported", type=Path, default=REPORTED, help="folder of printed numbers")
    return parser


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is absent: the published numbers lie in results/reported of the source "
            "repository, not in the wheel; name that folder with --reported DIR"
        ) from error


def _key(line: dict[str, str]) -> tuple[str, ...]:
    return line["backbone"], line["method"], line["method_params"]

"""A published table of parameters, and how our counts compare with it, digit by digit.

The published numbers, the class counts they were printed for and known misprints are data in
`results/reported/`.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.peft.sizes import SettingSize, setting_of

if TYPE_CHECKING:
    from segsweep.base.config import Config

METRICS: dict[str, Callable[[SettingSize], float]] = {
    "trainable_params": lambda row: row.counts.trainable / 1e6,
    "trainable_pct_eq10": lambda row: row.counts.percent,
}


@dataclass(frozen=True)
class PrintedSize:
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
        return any(self.describes(*words, setting_of(config, reading)) for reading in readings)

    def differences(self, row: SettingSize) -> list[str]:
        """Compare the counts with what is printed, to the digits printed."""
        sentences = []
        for metric, value in self.values.items():
            printed, correct = self.misprints.get(metric, (value, value))
            computed = to_digits_of(value, METRICS[metric](row))
            if (value, computed) != (printed, correct):
                sentences.append(f"{self}: {metric} is printed as {value}, computed {computed}")
        return sentences

    def __str__(self) -> str:
        setting = " ".join(f"{key}={value}" for key, value in self.setting.items())
        return f"{self.model} {self.peft} {setting}".strip()


def read_printed(folder: Path) -> list[PrintedSize]:
    """Read the published table 2b with its class counts and misprints.

    Raises:
        UserError: the folder does not hold the files.
    """
    values: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for line in filter(_in_table, _read(folder / "reported.csv")):
        values[_key(line)][line["metric"]] = line["value"]
    misprints: dict[tuple[str, ...], dict[str, tuple[str, str]]] = defaultdict(dict)
    for line in filter(_in_table, _read(folder / "misprints.csv")):
        correct = to_digits_of(line["value"], float(line["correct"]))
        misprints[_key(line)][line["metric"]] = line["value"], correct
    return [
        PrintedSize(
            model=line["model"],
            peft=line["peft"],
            setting=json.loads(line["setting"]),
            classes=int(line["classes"]),
            values=values[_key(line)],
            misprints=misprints[_key(line)],
        )
        for line in _read(folder / "table2b.csv")
    ]


def to_digits_of(printed: str, value: float) -> str:
    """Return a value with as many decimals as a printed number has."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def check(rows: list[SettingSize], printed: list[PrintedSize]) -> list[str]:
    """Compare counts with a published table: one sentence per difference or missing setting."""
    differences = []
    for line in printed:
        row = next((r for r in rows if line.describes(r.model, r.peft, r.setting)), None)
        differences += line.differences(row) if row else [f"{line}: not among the settings"]
    return differences


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: --reported DIR names a folder with the files of "
            "results/reported; without it those of the package are taken"
        ) from error


def _in_table(line: dict[str, str]) -> bool:
    return (line["source"], line["table"]) == ("000", "2b")


def _key(line: dict[str, str]) -> tuple[str, ...]:
    return line["backbone"], line["method"], line["method_params"]

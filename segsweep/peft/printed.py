"""Published columns of parameters, and how our counts compare with them, digit by digit.

The printed numbers are those of `results/reported/reported.csv`. Beside it each study has a file
`params_<study>.csv`, a line for each setting of a table: the words that make it here, the classes
it was printed for, our count, and a verdict: `exact` to every digit, `declared` to be another
number, with the reason, or `open`, as the model has no word yet.
"""

from __future__ import annotations

import csv
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.words import files

if TYPE_CHECKING:
    from segsweep.peft.apply import Counts

NUMBERS: dict[str, Callable[[Counts], float]] = {
    "params.trainable": lambda counts: counts.trainable / 1e6,
    "params.percent": lambda counts: counts.percent,
}
"""What may be printed of a setting, by the names of records."""
PLACE = ("table", "model", "backbone", "method", "method_params")
VERDICTS = ("exact", "declared", "open")


@dataclass(frozen=True)
class PrintedSize:
    """One setting of a published table, in the words of the command line.

    `values` are its numbers as printed, by the names of records; `trainable` is our count, None
    where nobody has counted.
    """

    study: str
    table: str
    words: tuple[str, ...]
    classes: int
    trainable: int | None
    verdict: str
    reason: str
    values: dict[str, str]

    def computed(self, counts: Counts) -> dict[str, str]:
        """Return our numbers with the digits printed."""
        return {
            name: to_digits_of(text, NUMBERS[name](counts)) for name, text in self.values.items()
        }

    def differences(self, counts: Counts) -> list[str]:
        """Return a sentence for each number that is not as its line says."""
        sentences = []
        if counts.trainable != self.trainable:
            sentences.append(
                f"{counts.trainable:,} parameters train, its line has {self.trainable}"
            )
        computed = self.computed(counts)
        wrong = [
            f"{name} is printed as {text}, computed {computed[name]}"
            for name, text in self.values.items()
            if text != computed[name]
        ]
        if self.verdict == "exact":
            sentences += wrong
        elif not wrong:
            sentences.append("is declared to differ, and every digit is as printed")
        return [f"{self}: {sentence}" for sentence in sentences]

    def mistake(self) -> str:
        """Say of an open line that its model has a word now; else ""."""
        word = self.words[0].removeprefix("model=")
        return (
            f"{self}: is said to be open, but there is this model" if word in files("model") else ""
        )

    def __str__(self) -> str:
        return f"{self.study} {self.table}: {' '.join(self.words)}"


def studies(folder: Path) -> list[str]:
    """Return the names of the studies whose columns can be checked."""
    return sorted(path.stem.removeprefix("params_") for path in folder.glob("params_*.csv"))


def read_printed(folder: Path, words: Sequence[str] = ()) -> list[PrintedSize]:
    """Read the settings of studies.

    Args:
        folder: with the files of `results/reported`.
        words: names of studies, none for all; `key=value` keeps the settings that say so.

    Raises:
        UserError: the folder does not hold the files, there is no such study or no such setting,
            or a line says what it cannot.
    """
    named, said = ([w for w in words if ("=" in w) == equals] for equals in (False, True))
    known = studies(folder)
    if wrong := [word for word in named if word not in known]:
        raise UserError(f"--check {wrong[0]}: there is no such study (choices: {', '.join(known)})")
    values = _values(folder)
    lines = [line for study in named or known for line in _settings(folder, study, values)]
    chosen = [line for line in lines if set(said) <= set(line.words)]
    if not chosen:
        raise UserError(f"--check {' '.join(words)}: no published setting has these words")
    return chosen


def _settings(
    folder: Path, study: str, values: dict[tuple[str, ...], dict[str, str]]
) -> list[PrintedSize]:
    path = folder / f"params_{study}.csv"
    settings = []
    for number, line in enumerate(_read(path), start=2):
        printed = values.get((study, *(line[key] for key in PLACE)))
        if not printed or line["verdict"] not in VERDICTS:
            fault = f"verdict {line['verdict']!r} is none of {', '.join(VERDICTS)}"
            raise UserError(f"{path}: line {number}: {fault if printed else 'nothing is printed'}")
        settings.append(
            PrintedSize(
                study=study,
                table=line["table"],
                words=tuple(shlex.split(line["words"])),
                classes=int(line["classes"]),
                trainable=int(line["trainable"]) if line["trainable"] else None,
                verdict=line["verdict"],
                reason=line["reason"],
                values=printed,
            )
        )
    return settings


def _values(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Return all printed numbers of parameters: by study and place, by the names of records."""
    names = _read(folder / "names.csv")
    metrics = {line["printed"]: line["word"] for line in names if line["kind"] == "metric"}
    values: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for line in _read(folder / "reported.csv"):
        if (name := metrics.get(line["metric"])) in NUMBERS:
            values[line["source"], *(line[key] for key in PLACE)][name] = line["value"]
    return values


def to_digits_of(printed: str, value: float) -> str:
    """Return a value with as many decimals as a printed number has."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: --reported DIR names a folder with the files of "
            "results/reported; without it those of the package are taken"
        ) from error

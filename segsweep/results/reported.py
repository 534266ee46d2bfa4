"""Published numbers in the form of our own runs: tables and figures are one function of both.

`reported/reported.csv` holds one printed number a line. Numbers of one setting on one data set
become one pseudo-run: {"origin": "reported", "config.peft.rank": 4, "metrics.mask AP.value": ...}.
`names.csv` beside it says what the words of the documents are called here, `misprints.csv` which of
the numbers are known to be wrong.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segsweep.base.errors import UserError
from segsweep.base.package import packaged
from segsweep.peft.printed import to_digits_of
from segsweep.results.wording import QUANTITIES, Values, label_of, published

FILE = Path("reported/reported.csv")  # below the results, or what comes with the package
COLUMNS = (
    *("source", "table", "model", "backbone", "method", "method_params", "dataset", "metric"),
    *("value", "std", "unit", "params_m", "params_pct", "note"),
)
PLACE = ("source", "table", "model", "backbone", "method", "method_params", "dataset")
SETTING = ("source", "table", "method", "method_params")
WRONG = ("model", "backbone", "method", "method_params", "metric", "value", "correct", "reason")
PRINTED_MEAN = "source.mean"  # of a setting over all data sets, as the document prints it


class Misprint(NamedTuple):
    """What is known of a printed number: whether it is surely wrong, and a sentence about it."""

    certain: bool
    text: str


def path_of(results: Path) -> Path:
    """Return where the published numbers are: below the results, else with the package."""
    own = results / FILE
    return own if own.is_file() else packaged("results/reported") / FILE.name


def read(results: Path) -> list[Values]:
    """Read all published numbers, in the order of the file.

    Raises UserError for a file that is missing or broken, naming file and line.
    """
    path = path_of(results)
    rows = _rows(path, COLUMNS)
    listed = path.with_name("misprints.csv")
    known = _misprints(_rows(listed, WRONG)) if listed.is_file() else {}
    runs: dict[tuple[str, ...], Values] = {}
    means: dict[tuple[str, ...], str] = {}
    for line, row in enumerate(rows, start=2):
        if not row["method"]:
            continue  # facts about data sets
        if row["metric"] == "AP_mean":
            means[tuple(row[key] for key in SETTING)] = row["value"]
            continue
        place = tuple(row[key] for key in PLACE)
        try:
            run = runs.get(place) or runs.setdefault(place, _run(row, line))
            run |= _number(row)
            run |= {f"source.misprint.{m}": known[key] for m, key in _keys(row) if key in known}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: line {line}: {error}") from error
        run["source.lines"] += f" {line}"
        notes = [run["source.note"], row["note"]]
        run["source.note"] = "; ".join(dict.fromkeys(note for note in notes if note))
    for place, run in runs.items():
        if mean := means.get(tuple(place[PLACE.index(key)] for key in SETTING)):
            run[PRINTED_MEAN] = float(mean)
    return list(runs.values())


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a file of published numbers. Raises UserError naming it where it lacks a column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: published numbers cannot be read ({error})") from error
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"{path}: without the columns {', '.join(missing)}")
    return rows


def _misprints(rows: list[dict[str, str]]) -> dict[tuple[str, ...], Misprint]:
    """Return the known misprints by the keys of their numbers."""
    known = {}
    for row in rows:
        value = row["correct"] and to_digits_of(row["value"], float(row["correct"]))
        correct = f", rather {value}" if value else ""
        misprint = Misprint(
            (row.get("certainty") or "certain") == "certain",
            f"{row['value']}{correct} ({row['reason']})",
        )
        known[_keys(row)[0][1]] = misprint
    return known


def _keys(row: dict[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the numbers of a line by their metrics: its own, and the parameters beside it."""
    place = tuple(row[key] for key in (*SETTING, "model", "backbone"))
    numbers = {_word("metric", row["metric"]): row["value"]}
    numbers.setdefault("params.trainable", row.get("params_m", ""))
    return [(metric, (*place, metric, value)) for metric, value in numbers.items()]


def _run(row: dict[str, str], line: int) -> Values:
    """Return a setting on a data set, without its numbers."""
    place = [part for part in (row["model"], row["backbone"]) if part]
    model = _word("model", ", ".join(place), default=" ".join(place))
    data = _word("data", row["dataset"])
    options = json.loads(row["method_params"] or "{}")
    return {
        "origin": "reported",
        "id": f"reported:{line}",
        "status": "done",
        "model": model,
        "architecture": row["model"],
        "backbone": row["backbone"],
        "data_set": label_of("data", data) or data,
        "source.document": row["source"],
        "source.table": row["table"],
        "source.lines": "",
        "source.note": "",
        "config.model.name": model,
        "config.peft.name": _word("peft", row["method"]),
        "config.data.name": data,
        **{f"config.peft.{_word('option', key)}": value for key, value in options.items()},
        **_number(row | {"metric": "params.trainable", "value": row["params_m"]}),
        **_number(row | {"metric": "params.percent", "value": row["params_pct"]}),
    }


def _word(kind: str, printed: str, default: str | None = None) -> str:
    """Return our word for one of the documents; what has none keeps its own."""
    known = published(kind).get(printed)
    return known.word if known else printed if default is None else default


def _number(row: dict[str, str]) -> Values:
    """Return the number of a line under the key that a record of ours has for it."""
    metric = _word("metric", row["metric"])
    if not row["value"]:
        return {}
    value = float(row["value"])
    if metric in QUANTITIES:
        return {metric: round(value / QUANTITIES[metric].factor, 3)}
    known, key = published("metric").get(row["metric"]), f"metrics.{metric}"
    return {
        f"{key}.value": value,
        f"{key}.unit": row["unit"],
        f"{key}.direction": known.label if known and known.label else "higher",
        f"{key}.protocol": _protocol(row["dataset"], metric),
        **({f"{key}.sd": float(row["std"])} if row["std"] else {}),
    }


def _protocol(data_set: str, metric: str) -> str:
    """Return by which rules a precision was computed; the studies say so of no other metric."""
    rules = "Cityscapes" if data_set == "Cityscapes" else "COCO"
    return rules if metric.startswith(("mask AP", "box AP")) else ""

"""Published numbers, one cell a line: reading them, and what their names mean."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from segsweep.audit.numbers import Interval, printed
from segsweep.base.errors import UserError

COLUMNS = (
    *("source", "table", "model", "backbone", "method", "method_params", "dataset", "task"),
    *("metric", "value", "unit"),
)
OPTIONAL = ("std", "params_m", "params_pct", "note")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
# These train what is there; all other methods put something into the model.
TRAIN_WHOLE = ("full_ft", "from_scratch")  # the backbone too
TRAIN_HEAD = ("fix", "decoder_only", "embeddings_only")  # what every other method trains as well
ADD_NOTHING = (*TRAIN_WHOLE, *TRAIN_HEAD, "full_head", "bitfit", "norms")
LOWER_IS_BETTER = ("BER", "MAE", "time", "latency", "memory", "params")
T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One number of a table; texts are as printed."""

    source: str
    table: str
    model: str
    backbone: str
    method: str
    params: tuple[tuple[str, Any], ...]  # of the method
    dataset: str
    task: str
    metric: str
    text: str
    unit: str
    std: str
    params_m: str
    params_pct: str
    note: str
    line: int

    @property
    def value(self) -> Fraction:
        """The number as printed."""
        return Fraction(self.text)

    def interval(self, cut: bool = False) -> Interval:
        """Return what the number may stand for."""
        return printed(self.text, cut)

    def now(self, text: str) -> Cell:
        """Return the cell with another number."""
        return replace(self, text=text)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What is trained how: model, backbone, method and its parameters."""
        return self.model, self.backbone, self.method, self.params

    @property
    def row(self) -> tuple[Any, ...]:
        """The place in the table where the numbers of one run stand."""
        return self.source, self.table, *self.setting, self.dataset, self.task

    @property
    def quantity(self) -> str:
        """The metric, with one name for all spellings of counts and shares of parameters."""
        if re.fullmatch(r"(trainable|trained|updated|tuned)_(params|parameters)\w*", self.metric):
            return "params"
        shares = r"(trainable|trained|updated|tuned)_(pct|percent|ratio|share)(_eq10)?(_min|_max)?"
        if found := re.fullmatch(shares, self.metric):
            return "percent" + (found[4] or "")
        return self.metric

    @property
    def is_percent(self) -> bool:
        """Whether the number is told in percent."""
        return self.unit in ("%", "percent")

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller number is a better one."""
        return any(word in self.metric for word in LOWER_IS_BETTER)

    def __str__(self) -> str:
        setting = " ".join(f"{key}={value}" for key, value in self.params)
        dataset = self.dataset if len(self.dataset) <= 40 else f"{self.dataset[:39]}…"
        words = self.model, self.backbone, self.method, setting, dataset, self.metric
        return " · ".join(word for word in words if word)


def read(path: Path) -> list[Cell]:
    """Read a tidy CSV file.

    Raises:
        UserError: no file, missing columns, or values that are no numbers, named by line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, row) for row in reader]
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if missing := [name for name in COLUMNS if name not in names]:
        needed = ", ".join(COLUMNS)
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; needed are {needed}; "
            f"{', '.join(OPTIONAL)} may stand beside them"
        )
    wrong: list[str] = []
    cells = [_cell(number, row, wrong) for number, row in lines]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(f"{path}: cannot be read: {'; '.join(wrong[:10])}{more}")
    return cells


def _cell(number: int, row: dict[str, Any], wrong: list[str]) -> Cell:
    """Return the cell of one line; append to `wrong` what is no number or no JSON."""
    field = {key: (row.get(key) or "").strip() for key in (*COLUMNS, *OPTIONAL)}
    for key in ("value", "std", "params_m", "params_pct"):
        if not NUMBER.fullmatch(field[key]) and (field[key] or key == "value"):
            wrong.append(f"line {number}: {key} is {field[key]!r}, not a number")
    try:
        params = json.loads(field.pop("method_params") or "{}")
        pairs = tuple(sorted((key, _scalar(value)) for key, value in params.items()))
    except (ValueError, AttributeError):
        pairs = ()
        wrong.append(f'line {number}: method_params is no JSON object such as {{"r": 8}}')
    return Cell(text=field.pop("value"), params=pairs, line=number, **field)


def _scalar(value: Any) -> Any:
    """Return a value that can be a part of a key."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def by(cells: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Return lists of those that have the same key, in order."""
    found: dict[Any, list[T]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return found

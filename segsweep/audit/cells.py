"""Published numbers, one cell a line: what they are, and reading them.

Beside a table may lie `roles.csv`: what a method trains, whether it adds anything to the model, and
whether it is what deltas refer to. A method that is not in it trains the head and what it adds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from segsweep.audit.numbers import Interval, printed, repairs
from segsweep.base.errors import UserError

COLUMNS = (
    *("source", "table", "model", "backbone", "method", "method_params", "dataset", "task"),
    *("metric", "value", "unit"),
)
OPTIONAL = ("std", "params_m", "params_pct", "items", "note")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
ROLES = "roles.csv"
TRAINS = ("whole", "head", "part", "more")
LOWER_IS_BETTER = re.compile(r"BER|MAE|error|time|latency|memory|params")
T = TypeVar("T")


@dataclass(frozen=True)
class Role:
    """What a method does to a model: `trains` the backbone too, the head, a part, or head and more.

    Of several methods that train heads the first `line` of the file is the smallest.
    """

    trains: str = "more"
    adds: bool = True
    reference: bool = False  # of the deltas of its table
    line: int = 0


@dataclass(frozen=True)
class PrintedCell:
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
    items: str  # counted, of which this is a share
    note: str
    line: int
    role: Role = field(default=Role(), compare=False)

    @cached_property
    def value(self) -> Fraction:
        """The number as printed."""
        return Fraction(self.text)

    def interval(self, cut: bool = False) -> Interval:
        """Return what the number may stand for."""
        return printed(self.text, cut)

    def now(self, text: str) -> PrintedCell:
        """Return the cell with another number."""
        return replace(self, text=text)

    def changes(self, right: Callable[[str], bool]) -> list[str]:
        """Return the first two numbers one slip away that are right, as corrections."""
        return [f"{self.metric} {self.text} → {t}" for t in repairs(self.text, right)[:2]]

    @property
    def setting(self) -> tuple[Any, ...]:
        """What is trained how: model, backbone, method and its parameters."""
        return self.model, self.backbone, self.method, self.params

    @cached_property
    def row(self) -> tuple[Any, ...]:
        """The place in the table where the numbers of one run stand."""
        return self.source, self.table, *self.setting, self.dataset, self.task

    @cached_property
    def column(self) -> tuple[Any, ...]:
        """What numbers of other methods stand above and below it."""
        words = self.model, self.backbone, self.dataset, self.task, self.metric
        return self.source, self.table, *words

    @cached_property
    def quantity(self) -> str:
        """The metric, with one name for all spellings of counts and shares of parameters."""
        if re.fullmatch(r"(trainable|trained|updated|tuned)_(params|parameters)\w*", self.metric):
            return "params"
        shares = r"(trainable|trained|updated|tuned)_(pct|percent|ratio|share)(_eq10)?(_min|_max)?"
        if matched := re.fullmatch(shares, self.metric):
            return "percent" + (matched[4] or "")
        return self.metric

    @property
    def is_percent(self) -> bool:
        """Whether the number is told in percent."""
        return self.unit in ("%", "percent")

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller number is a better one."""
        told = re.search("(lower|higher) is better", self.note)
        return told[1] == "lower" if told else bool(LOWER_IS_BETTER.search(self.metric))

    def beats(self, other: PrintedCell) -> bool:
        """Say whether this number is a better one than another."""
        return self.value < other.value if self.lower_is_better else self.value > other.value

    def __str__(self) -> str:
        setting = " ".join(f"{key}={value}" for key, value in self.params)
        dataset = self.dataset if len(self.dataset) <= 40 else f"{self.dataset[:39]}…"
        words = self.model, self.backbone, self.method, setting, dataset, self.metric
        return " · ".join(word for word in words if word)


def read(path: Path, roles: Path | None = None) -> list[PrintedCell]:
    """Read a tidy CSV file; `roles` is the file that tells of its methods.

    Raises:
        UserError: no file, missing columns, or values that are no numbers, named by line.
    """
    lines = table(path, COLUMNS, OPTIONAL)
    by_method = read_roles(roles) if roles else {}
    wrong: list[str] = []
    cells = [_cell(number, row, wrong, by_method) for number, row in lines]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(f"{path}: cannot be read: {'; '.join(wrong[:10])}{more}")
    return cells


def read_roles(path: Path) -> dict[str, Role]:
    """Return what a file tells of methods, by their names.

    Raises:
        UserError: missing columns, or a word that is not in TRAINS, by line.
    """
    roles = {}
    for line, row in table(path, ("method", "trains", "adds", "reference")):
        if row["trains"] not in TRAINS:
            choices = ", ".join(TRAINS)
            raise UserError(f"{path}, line {line}: trains {row['trains']!r} (choices: {choices})")
        adds, reference = (row[key] == "yes" for key in ("adds", "reference"))
        roles[row["method"]] = Role(row["trains"], adds, reference, line)
    return roles


def table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV file that has these columns, with their numbers.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, row) for row in reader]
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if missing := [name for name in columns if name not in names]:
        beside = f"; {', '.join(optional)} may stand beside them" if optional else ""
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; needed are {', '.join(columns)}{beside}"
        )
    return [(line, {key: (row.get(key) or "").strip() for key in names}) for line, row in lines]


def _cell(
    number: int, row: dict[str, str], wrong: list[str], roles: Mapping[str, Role]
) -> PrintedCell:
    """Return the cell of one line; append to `wrong` what is no number or no JSON."""
    texts = {key: row.get(key, "") for key in (*COLUMNS, *OPTIONAL)}
    for key in ("value", "std", "params_m", "params_pct"):
        if not NUMBER.fullmatch(texts[key]) and (texts[key] or key == "value"):
            wrong.append(f"line {number}: {key} is {texts[key]!r}, not a number")
    if texts["items"] and not (texts["items"].isdigit() and int(texts["items"])):
        wrong.append(f"line {number}: items is {texts['items']!r}, not a number of items")
    try:
        params = json.loads(texts.pop("method_params") or "{}")
        pairs = tuple(sorted((key, _scalar(value)) for key, value in params.items()))
    except (ValueError, AttributeError):
        pairs = ()
        wrong.append(f'line {number}: method_params is no JSON object such as {{"r": 8}}')
    role = roles.get(texts["method"], Role())
    return PrintedCell(text=texts.pop("value"), params=pairs, line=number, role=role, **texts)


def _scalar(value: Any) -> Any:
    """Return a value that can be a part of a key."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def smallest_head(cells: Iterable[PrintedCell]) -> PrintedCell | None:
    """Return a cell of the method that trains what every other one trains as well."""
    heads = [cell for cell in cells if cell.role.trains == "head"]
    return min(heads, key=lambda cell: cell.role.line, default=None)


def by(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Return lists of those that have the same key, in order."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups

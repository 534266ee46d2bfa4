"""Sentences about a table: which cells they speak of, and what number these stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from segsweep.audit.cells import PrintedCell
from segsweep.audit.numbers import Interval, exactly, mean
from segsweep.base.errors import UserError

FAR = Fraction(10**9)
CONDITION = re.compile(r"\s*([\w ]+?)\s*(!?=)\s*(.*?)\s*")
NUMBERS: dict[str, Callable[[Sequence[Interval]], Interval]] = {
    "mean": mean,
    "sum": lambda values: sum(values[1:], start=values[0]),
    "min": lambda values: Interval(min(v.low for v in values), min(v.high for v in values)),
    "max": lambda values: Interval(max(v.low for v in values), max(v.high for v in values)),
}


@dataclass(frozen=True)
class Claim:
    """One line of a claims file."""

    source: str
    claim: str
    kind: str
    cells: str
    against: str
    stated: str
    tolerance: str
    wording: str
    line: int

    def bounds(self) -> Interval:
        """Return where the stated number, give or take the tolerance, lies."""
        low, _, high = self.stated.partition("..")
        slack = Fraction(self.tolerance or 0)
        bottom = Fraction(low) if low else -FAR
        top = (Fraction(high) if high else FAR) if ".." in self.stated else bottom
        return Interval(bottom - slack, top + slack)


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds (`None`: only if digits were rounded so), and what follows."""

    holds: bool | None
    follows: str
    cells: Sequence[PrintedCell]


def select(cells: Sequence[PrintedCell], text: str, source: str) -> list[PrintedCell]:
    """Return the cells that a selector names.

    Raises:
        UserError: it cannot be read, or selects nothing.
    """
    conditions = []
    for part in filter(str.strip, text.rpartition(": ")[2].split(";")):
        if not (matched := CONDITION.fullmatch(part)):
            raise UserError(f"claim of {source}: {part!r} is not of the form column=value")
        conditions.append((matched[1], matched[2] == "=", matched[3].split("|")))
    if not any(key == "source" for key, _, _ in conditions):
        cells = [cell for cell in cells if cell.source == source]

    def matches(cell: PrintedCell) -> bool:
        params = dict(cell.params)
        return all(
            (str(params.get(key, getattr(cell, key, ""))) in values) == equal
            for key, equal, values in conditions
        )

    chosen = [cell for cell in cells if matches(cell)]
    if not chosen:
        raise UserError(f"claim of {source}: no cell has {text!r}")
    return chosen


def number(
    cells: Sequence[PrintedCell], text: str, source: str
) -> tuple[Interval, list[PrintedCell]]:
    """Return the number that an operand stands for, and the cells it was made of."""
    if text.startswith("="):
        try:
            terms = [prod(Fraction(f) for f in term.split("*")) for term in text[1:].split("+")]
        except ValueError as error:
            raise UserError(f"claim of {source}: {text!r} is no sum of products") from error
        return exactly(sum(terms, start=Fraction(0))), []
    chosen = select(cells, text, source)
    word = text.partition(": ")[0] if ": " in text else ""
    if len(chosen) > 1 and word not in NUMBERS:
        raise UserError(f"claim of {source}: {text!r} are {len(chosen)} cells; begin with `mean: `")
    return NUMBERS[word or "sum"]([c.interval() for c in chosen]), chosen


def within(value: Interval, bounds: Interval) -> bool | None:
    """Say whether a number is stated rightly; `None`: unprinted digits must help."""
    if not value.meets(bounds):
        return False
    return True if bounds.low <= value.middle <= bounds.high else None


def column_of(cell: PrintedCell) -> tuple[str, ...]:
    """Return what two cells must have in common to be compared."""
    return cell.model, cell.backbone, cell.dataset, cell.metric


def tied(a: PrintedCell, b: PrintedCell) -> bool:
    """Say whether two printed numbers may stand for one."""
    return a.interval().meets(b.interval())


def named(cell: PrintedCell) -> str:
    """Return the method of a cell with its parameters."""
    setting = " ".join(f"{key}={value}" for key, value in cell.params)
    return f"{cell.method} {setting}".strip()

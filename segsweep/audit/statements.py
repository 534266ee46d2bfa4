"""Sentences about a table: what they say, and which cells they speak of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from segsweep.audit.cells import Cell
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
    cells: Sequence[Cell]


def select(cells: Sequence[Cell], text: str, source: str) -> list[Cell]:
    """Return the cells that a selector names.

    Raises:
        UserError: it cannot be read, or selects nothing.
    """
    conditions = []
    for part in filter(str.strip, text.rpartition(": ")[2].split(";")):
        if not (found := CONDITION.fullmatch(part)):
            raise UserError(f"claim of {source}: {part!r} is not of the form column=value")
        conditions.append((found[1], found[2] == "=", found[3].split("|")))
    if not any(key == "source" for key, _, _ in conditions):
        conditions.append(("source", True, [source]))

    def matches(cell: Cell) -> bool:
        params = {key: str(value) for key, value in cell.params}
        return all(
            (params.get(key, str(getattr(cell, key, ""))) in values) == wanted
            for key, wanted, values in conditions
        )

    chosen = [cell for cell in cells if matches(cell)]
    if not chosen:
        raise UserError(f"claim of {source}: no cell has {text!r}")
    return chosen


def number(cells: Sequence[Cell], text: str, source: str) -> tuple[Interval, list[Cell]]:
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

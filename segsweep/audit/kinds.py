"""Sentences about a table: which cells they speak of, and kinds of holding them against these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import prod

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.counts import EQUATION, bases, pairs
from segsweep.audit.numbers import Interval, agreed, exactly, mean, short
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
        conditions.append(("source", True, [source]))

    def matches(cell: PrintedCell) -> bool:
        params = {key: str(value) for key, value in cell.params}
        return all(
            (params.get(key, str(getattr(cell, key, ""))) in values) == equal
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


def judge(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """Hold one claim against the cells."""
    return KINDS[claim.kind](claim, cells)


def _within(value: Interval, bounds: Interval) -> bool | None:
    """Say whether a number is stated rightly; `None`: unprinted digits must help."""
    if not value.meets(bounds):
        return False
    return True if bounds.low <= value.middle <= bounds.high else None


def _calculated(formula: Callable[[Interval, Interval], Interval]) -> Callable[..., Verdict]:
    def kind(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
        value_left, used = number(cells, claim.cells, claim.source)
        value_right, more = number(cells, claim.against or "= 1", claim.source)
        if value_right.low <= 0 <= value_right.high and claim.kind in ("ratio", "reduction"):
            raise UserError(f"claim of {claim.source}: {claim.against!r} may be zero")
        value = formula(value_left, value_right)
        return Verdict(_within(value, claim.bounds()), short(value.middle), [*used, *more])

    return kind


def _count(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    value = exactly(len(chosen))
    return Verdict(_within(value, claim.bounds()), str(len(chosen)), chosen)


def _range(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """Least and largest are the two ends; `within`: not outside them."""
    chosen = sorted(select(cells, claim.cells, claim.source), key=lambda c: c.value)
    lowest, highest, bounds = chosen[0], chosen[-1], claim.bounds()
    if claim.kind == "within":
        inside = [_within(c.interval(), bounds) for c in chosen]
        holds = False if False in inside else None if None in inside else True
    else:
        slack = Fraction(claim.tolerance or 0)
        low, high = bounds.low + slack, bounds.high - slack
        ends = [
            _within(cell.interval(), Interval(end - slack, end + slack))
            for cell, end in ((lowest, low), (highest, high))
        ]
        holds = False not in ends
    outside = [c for c in chosen if _within(c.interval(), bounds) is False] or [lowest, highest]
    return Verdict(holds, f"{lowest.text} to {highest.text}", outside)


def _best(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    others = select(cells, claim.against, claim.source)
    sign = -1 if chosen[0].lower_is_better else 1
    best = max([*chosen, *others], key=lambda c: sign * c.value)
    claimed = max(chosen, key=lambda c: sign * c.value)
    holds = claimed.interval().meets(best.interval())
    if holds and claim.stated:
        holds = claimed.interval().meets(claim.bounds())
    return Verdict(holds, f"the best is {best.text} of {_named(best)}", [claimed, best])


def _above(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    cells_left = select(cells, claim.cells, claim.source)
    right = by(select(cells, claim.against, claim.source), _column)
    compared = [(a, b) for a in cells_left for b in right.get(_column(a), [])]
    if not compared:
        raise UserError(f"claim of {claim.source}: no pairs of {claim.cells!r} to compare")
    wins = [(a, b) for a, b in compared if a.beats(b)]
    losses = [(a, b) for a, b in compared if b.beats(a) and not _tied(a, b)]
    holds = {
        "all": not losses,
        "most": 2 * len(wins) > len(compared),
        "any": bool(wins),
    }.get(claim.stated)
    if holds is None:
        raise UserError(
            f"claim of {claim.source}: stated is {claim.stated!r}, not all, most or any"
        )
    text = f"so in {len(wins)} of {len(compared)} pairs, not in {len(losses)}"
    worst = [c for pair in losses[:4] for c in pair]
    examples = ", ".join(
        f"{_named(a)} {a.text} against {_named(b)} {b.text}" for a, b in losses[:3]
    )
    return Verdict(holds, f"{text}: {examples}" if examples else text, worst)


def _along(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    sign = 1 if claim.kind == "rising" else -1
    chosen = select(cells, claim.cells, claim.source)
    if strangers := [cell for cell in chosen if claim.stated not in dict(cell.params)]:
        raise UserError(f"claim of {claim.source}: {strangers[0]} has no {claim.stated!r}")
    broken: list[list[PrintedCell]] = []
    columns = by(chosen, _column)
    for column in columns.values():
        ordered = sorted(column, key=lambda c: dict(c.params)[claim.stated])
        if any(sign * (b.value - a.value) < 0 and not _tied(a, b) for a, b in pairwise(ordered)):
            broken.append(ordered)
    columns_text = "; ".join(
        f"{column[0].model} {column[0].dataset} {', '.join(c.text for c in column)}"
        for column in broken
    )
    return Verdict(
        not broken,
        f"not in {len(broken)} of {len(columns)} columns: {columns_text}",
        [c for column in broken for c in column],
    )


def _base(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    rows = [pair for group in pairs(chosen).values() for pair in group]
    value, _ = agreed(bases(rows, EQUATION))
    return Verdict(value.meets(claim.bounds()), f"{short(value)} M", [])


def _unit(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    wrong = [c for c in chosen if c.unit != claim.stated]
    return Verdict(not wrong, f"printed in {wrong[0].unit if wrong else claim.stated}", wrong)


def _column(cell: PrintedCell) -> tuple[str, ...]:
    return cell.model, cell.backbone, cell.dataset, cell.metric


def _tied(a: PrintedCell, b: PrintedCell) -> bool:
    return a.interval().meets(b.interval())


def _named(cell: PrintedCell) -> str:
    setting = " ".join(f"{key}={value}" for key, value in cell.params)
    return f"{cell.method} {setting}".strip()


KINDS: dict[str, Callable[[Claim, Sequence[PrintedCell]], Verdict]] = {
    "value": _calculated(lambda a, _: a),
    "ratio": _calculated(lambda a, b: a / b),
    "difference": _calculated(lambda a, b: a - b),
    "reduction": _calculated(lambda a, b: (exactly(1) - a / b) * 100),
    "count": _count,
    "range": _range,
    "within": _range,
    "best": _best,
    "above": _above,
    "rising": _along,
    "falling": _along,
    "base": _base,
    "unit": _unit,
}
WORDS = ("above", "rising", "falling", "unit")  # `stated` is no number

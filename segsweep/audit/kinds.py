"""Kinds of sentences, each held against the cells in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from segsweep.audit.cells import Cell, by
from segsweep.audit.counts import EQUATION, agreed, bases, pairs
from segsweep.audit.numbers import Interval, exactly, short
from segsweep.audit.statements import Claim, Verdict, number, select
from segsweep.base.errors import UserError


def judge(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    """Hold one claim against the cells."""
    return KINDS[claim.kind](claim, cells)


def _within(value: Interval, bounds: Interval) -> bool | None:
    """Say whether a number is stated rightly; `None`: unprinted digits must help."""
    if not value.meets(bounds):
        return False
    return True if bounds.low <= value.middle <= bounds.high else None


def _calculated(formula: Callable[[Interval, Interval], Interval]) -> Callable[..., Verdict]:
    def kind(claim: Claim, cells: Sequence[Cell]) -> Verdict:
        left, used = number(cells, claim.cells, claim.source)
        right, more = number(cells, claim.against or "= 1", claim.source)
        if right.low <= 0 <= right.high and claim.kind in ("ratio", "reduction"):
            raise UserError(f"claim of {claim.source}: {claim.against!r} may be zero")
        value = formula(left, right)
        return Verdict(_within(value, claim.bounds()), short(value.middle), [*used, *more])

    return kind


def _count(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    value = exactly(len(chosen))
    return Verdict(_within(value, claim.bounds()), str(len(chosen)), chosen)


def _range(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    """Least and largest are the two ends; `within`: not outside them."""
    chosen = sorted(select(cells, claim.cells, claim.source), key=lambda c: c.value)
    first, last, bounds = chosen[0], chosen[-1], claim.bounds()
    if claim.kind == "within":
        inside = [_within(c.interval(), bounds) for c in chosen]
        holds = False if False in inside else None if None in inside else True
    else:
        slack = Fraction(claim.tolerance or 0)
        low, high = bounds.low + slack, bounds.high - slack
        ends = [
            _within(cell.interval(), Interval(end - slack, end + slack))
            for cell, end in ((first, low), (last, high))
        ]
        holds = False not in ends
    outside = [c for c in chosen if _within(c.interval(), bounds) is False] or [first, last]
    return Verdict(holds, f"{first.text} to {last.text}", outside)


def _best(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    others = select(cells, claim.against, claim.source)
    sign = -1 if chosen[0].lower_is_better else 1
    best = max([*chosen, *others], key=lambda c: sign * c.value)
    own = max(chosen, key=lambda c: sign * c.value)
    holds = own.interval().meets(best.interval())
    if holds and claim.stated:
        holds = own.interval().meets(claim.bounds())
    return Verdict(holds, f"the best is {best.text} of {_named(best)}", [own, best])


def _above(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    left = select(cells, claim.cells, claim.source)
    right = by(select(cells, claim.against, claim.source), _column)
    compared = [(a, b) for a in left for b in right.get(_column(a), [])]
    if not compared:
        raise UserError(f"claim of {claim.source}: no pairs of {claim.cells!r} to compare")
    won = [(a, b) for a, b in compared if _better(a, b)]
    lost = [(a, b) for a, b in compared if _better(b, a) and not _tied(a, b)]
    holds = {
        "all": not lost,
        "most": 2 * len(won) > len(compared),
        "any": bool(won),
    }.get(claim.stated)
    if holds is None:
        raise UserError(
            f"claim of {claim.source}: stated is {claim.stated!r}, not all, most or any"
        )
    text = f"so in {len(won)} of {len(compared)} pairs, not in {len(lost)}"
    worst = [c for pair in lost[:4] for c in pair]
    told = ", ".join(f"{_named(a)} {a.text} against {_named(b)} {b.text}" for a, b in lost[:3])
    return Verdict(holds, f"{text}: {told}" if told else text, worst)


def _along(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    sign = 1 if claim.kind == "rising" else -1
    chosen = select(cells, claim.cells, claim.source)
    if strangers := [cell for cell in chosen if claim.stated not in dict(cell.params)]:
        raise UserError(f"claim of {claim.source}: {strangers[0]} has no {claim.stated!r}")
    broken: list[list[Cell]] = []
    columns = by(chosen, _column)
    for column in columns.values():
        ordered = sorted(column, key=lambda c: dict(c.params)[claim.stated])
        if any(sign * (b.value - a.value) < 0 and not _tied(a, b) for a, b in pairwise(ordered)):
            broken.append(ordered)
    told = "; ".join(
        f"{column[0].model} {column[0].dataset} {', '.join(c.text for c in column)}"
        for column in broken
    )
    return Verdict(
        not broken,
        f"not in {len(broken)} of {len(columns)} columns: {told}",
        [c for column in broken for c in column],
    )


def _base(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    rows = [pair for group in pairs(chosen).values() for pair in group]
    value, _ = agreed(bases(rows, EQUATION))
    return Verdict(value.meets(claim.bounds()), f"{short(value)} M", [])


def _unit(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    wrong = [c for c in chosen if c.unit != claim.stated]
    return Verdict(not wrong, f"printed in {wrong[0].unit if wrong else claim.stated}", wrong)


def _column(cell: Cell) -> tuple[str, ...]:
    return cell.model, cell.backbone, cell.dataset, cell.metric


def _tied(one: Cell, other: Cell) -> bool:
    return one.interval().meets(other.interval())


def _better(one: Cell, other: Cell) -> bool:
    return one.value < other.value if one.lower_is_better else one.value > other.value


def _named(cell: Cell) -> str:
    setting = " ".join(f"{key}={value}" for key, value in cell.params)
    return f"{cell.method} {setting}".strip()


KINDS: dict[str, Callable[[Claim, Sequence[Cell]], Verdict]] = {
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

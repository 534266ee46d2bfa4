"""Kinds of sentences, and how each is held against the cells it speaks of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.counts import EQUATION, bases, pairs
from segsweep.audit.numbers import Interval, agreed, exactly, short
from segsweep.audit.sentences import Claim, Verdict, column_of, named, number, select, tied, within
from segsweep.audit.trends import TRENDS
from segsweep.base.errors import UserError


def judge(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """Hold one claim against the cells."""
    return KINDS[claim.kind](claim, cells)


def _calculated(formula: Callable[[Interval, Interval], Interval]) -> Callable[..., Verdict]:
    def kind(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
        value_left, used = number(cells, claim.cells, claim.source)
        value_right, more = number(cells, claim.against or "= 1", claim.source)
        if value_right.low <= 0 <= value_right.high and claim.kind in ("ratio", "reduction"):
            raise UserError(f"claim of {claim.source}: {claim.against!r} may be zero")
        value = formula(value_left, value_right)
        return Verdict(within(value, claim.bounds()), short(value.middle), [*used, *more])

    return kind


def _count(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    chosen = select(cells, claim.cells, claim.source)
    value = exactly(len(chosen))
    return Verdict(within(value, claim.bounds()), str(len(chosen)), chosen)


def _range(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """Least and largest are the two ends; `within`: not outside them."""
    chosen = sorted(select(cells, claim.cells, claim.source), key=lambda c: c.value)
    lowest, highest, bounds = chosen[0], chosen[-1], claim.bounds()
    if claim.kind == "within":
        inside = [within(c.interval(), bounds) for c in chosen]
        holds = False if False in inside else None if None in inside else True
    else:
        slack = Fraction(claim.tolerance or 0)
        low, high = bounds.low + slack, bounds.high - slack
        ends = [
            within(cell.interval(), Interval(end - slack, end + slack))
            for cell, end in ((lowest, low), (highest, high))
        ]
        holds = False not in ends
    outside = [c for c in chosen if within(c.interval(), bounds) is False] or [lowest, highest]
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
    return Verdict(holds, f"the best is {best.text} of {named(best)}", [claimed, best])


def _above(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    cells_left = select(cells, claim.cells, claim.source)
    right = by(select(cells, claim.against, claim.source), column_of)
    compared = [(a, b) for a in cells_left for b in right.get(column_of(a), [])]
    if not compared:
        raise UserError(f"claim of {claim.source}: no pairs of {claim.cells!r} to compare")
    wins = [(a, b) for a, b in compared if a.beats(b)]
    losses = [(a, b) for a, b in compared if b.beats(a) and not tied(a, b)]
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
    examples = ", ".join(f"{named(a)} {a.text} against {named(b)} {b.text}" for a, b in losses[:3])
    return Verdict(holds, f"{text}: {examples}" if examples else text, worst)


def _along(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    sign = 1 if claim.kind == "rising" else -1
    chosen = select(cells, claim.cells, claim.source)
    if strangers := [cell for cell in chosen if claim.stated not in dict(cell.params)]:
        raise UserError(f"claim of {claim.source}: {strangers[0]} has no {claim.stated!r}")
    broken: list[list[PrintedCell]] = []
    columns = by(chosen, column_of)
    for column in columns.values():
        ordered = sorted(column, key=lambda c: dict(c.params)[claim.stated])
        if any(sign * (b.value - a.value) < 0 and not tied(a, b) for a, b in pairwise(ordered)):
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


CALCULATED = {
    "value": _calculated(lambda a, _: a),
    "ratio": _calculated(lambda a, b: a / b),
    "difference": _calculated(lambda a, b: a - b),
    "reduction": _calculated(lambda a, b: (exactly(1) - a / b) * 100),
}
KINDS: dict[str, Callable[[Claim, Sequence[PrintedCell]], Verdict]] = {
    **CALCULATED,
    "count": _count,
    "range": _range,
    "within": _range,
    "best": _best,
    "above": _above,
    "rising": _along,
    "falling": _along,
    "base": _base,
    "unit": _unit,
    **TRENDS,
}
WORDS = ("above", "rising", "falling", "unit", *TRENDS)  # `stated` is no number

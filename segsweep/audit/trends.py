"""Sentences about what more parameters bring, about spreads, and about what is not told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.numbers import short
from segsweep.audit.sentences import Claim, Verdict, column_of, named, select
from segsweep.base.errors import UserError

Pair = tuple[PrintedCell, PrintedCell]


def _gains(claim: Claim, cells: Sequence[PrintedCell]) -> list[list[PrintedCell]]:
    """Return the cells of every column along a parameter of `stated` (`r|I`), three or more."""
    places: dict[PrintedCell, float] = {}
    for cell in cells:
        values = [v for key, v in cell.params if key in claim.stated.split("|")]
        if len(values) != 1:
            raise UserError(f"claim of {claim.source}: {cell} has no {claim.stated!r}")
        places[cell] = values[0]
    columns = by(cells, column_of).values()
    ordered = [sorted(column, key=places.__getitem__) for column in columns]
    if short_ones := [column for column in ordered if len(column) < 3]:
        raise UserError(f"claim of {claim.source}: {short_ones[0][0]}: a trend needs three cells")
    return ordered


def _steps(column: Sequence[PrintedCell]) -> list[Fraction]:
    sign = -1 if column[0].lower_is_better else 1
    return [sign * (b.value - a.value) for a, b in pairwise(column)]


def slowing(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """The last step along the parameter `stated` brings less than each step before, everywhere."""
    columns = _gains(claim, select(cells, claim.cells, claim.source))
    broken = [column for column in columns if _steps(column)[-1] >= min(_steps(column)[:-1])]
    text = "; ".join(
        f"{', '.join(c.text for c in column)} gain {', '.join(map(short, _steps(column)))}"
        for column in broken or columns
    )
    return Verdict(not broken, text, [c for column in broken or columns for c in column])


def saturating(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """The last step brings a smaller share of the whole gain in `cells` than in `against`."""
    chosen = [
        column
        for part in (claim.cells, claim.against)
        for column in _gains(claim, select(cells, part, claim.source))
    ]
    if len(chosen) != 2:
        raise UserError(f"claim of {claim.source}: two columns to compare, not {len(chosen)}")
    shares = []
    for column in chosen:
        steps = _steps(column)
        whole = max(sum(steps[:end], start=Fraction(0)) for end in range(1, len(steps) + 1))
        if whole <= 0:
            raise UserError(f"claim of {claim.source}: {column[0]} gains nothing")
        shares.append(100 * steps[-1] / whole)
    text = " against ".join(f"{float(share):.1f} %" for share in shares)
    text = f"the last step brings {text} of the whole gain"
    return Verdict(shares[0] < shares[1], text, [c for column in chosen for c in column])


def front(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """No cell of `against` is better with fewer parameters, by the column `params_m`."""
    others = by(select(cells, claim.against, claim.source), column_of)
    chosen = select(cells, claim.cells, claim.source)
    if unsized := [c for c in chosen if not c.params_m]:
        raise UserError(f"claim of {claim.source}: {unsized[0]} has no params_m")
    beaten: list[Pair] = []
    for cell in chosen:
        better = [
            c
            for c in others.get(column_of(cell), [])
            if c.params_m and Fraction(c.params_m) < Fraction(cell.params_m) and c.beats(cell)
        ]
        beaten += [(cell, c) for c in better[:1]]
    examples = ", ".join(
        f"{a.text} of {named(a)} ({a.params_m} M) below {b.text} of {named(b)} ({b.params_m} M)"
        for a, b in beaten[:3]
    )
    text = f"{len(beaten)} of {len(chosen)} are beaten by a smaller one: {examples}"
    return Verdict(not beaten, text, [c for pair in beaten for c in pair])


def apart(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """Cells are better than `against` by more than both printed spreads together, in every pair."""
    right = by(select(cells, claim.against, claim.source), column_of)
    compared = [
        (a, b)
        for a in select(cells, claim.cells, claim.source)
        for b in right.get(column_of(a), [])
        if a.std and b.std
    ]
    if not compared:
        raise UserError(f"claim of {claim.source}: no pairs of {claim.cells!r} with spreads")
    near = [
        (a, b)
        for a, b in compared
        if not (a.beats(b) and abs(a.value - b.value) > Fraction(a.std) + Fraction(b.std))
    ]
    examples = ", ".join(
        f"{a.dataset} {a.metric} {a.text} ± {a.std} against {b.text} ± {b.std}" for a, b in near[:3]
    )
    text = f"so in {len(compared) - len(near)} of {len(compared)} pairs, not in {len(near)}"
    return Verdict(not near, f"{text}: {examples}", [c for pair in near for c in pair])


def told(claim: Claim, cells: Sequence[PrintedCell]) -> Verdict:
    """No note beside the cells says that what is `stated` (model, dataset) is not named there."""
    silent = re.compile(rf"\b{re.escape(claim.stated)}\b[^;,]* not (re)?(named|stated)")
    wrong = [
        c
        for c in select(cells, claim.cells, claim.source)
        if silent.search(c.note) or silent.search(c.dataset)
    ]
    text = f"{len(wrong)} numbers stand for no {claim.stated} that is named beside them"
    return Verdict(not wrong, text, wrong)


TRENDS: dict[str, Callable[[Claim, Sequence[PrintedCell]], Verdict]] = {
    "slowing": slowing,
    "saturating": saturating,
    "front": front,
    "apart": apart,
    "told": told,
}

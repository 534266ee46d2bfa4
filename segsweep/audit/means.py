"""Means: an average against what it is the average of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from segsweep.audit.averages import (
    ALL,
    FOREGROUND,
    Average,
    MeanColumn,
    mean_columns,
    recomputed,
)
from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.deltas import votes
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.numbers import exactly, mean, printed, repairs, short, written

Slip = tuple[PrintedCell, str]  # a cell, and what it should be


def means(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A printed mean is the mean of its members, all rows of a table over the same ones."""
    stand_by = votes(cells, recomputed(cells))
    places = by(cells, lambda c: c.column)
    for column in mean_columns(cells):
        if not column.plain:
            yield _no_means(column)
            continue
        wrong = column.wrong()
        others: dict[str, list[Average]] = {}
        for average in column.averages:
            if average in wrong:
                yield _wrong(average, column.usual, stand_by[average.target], places)
            elif average.fits(column.usual):
                if not average.target.interval().meets(exactly(average.value(column.usual))):
                    yield _explained(average, column.usual)
            elif policy := column.other(average):
                others.setdefault(policy, []).append(average)
            else:
                yield _cut(average, column.usual)
        if others:
            fitting = [a for a in column.averages if a.fits(column.usual)]
            yield _mixed({column.usual: fitting, **others})


def _no_means(column: MeanColumn) -> Contradiction:
    first = column.averages[0]
    return Contradiction(
        certainty=Certainty.DEFINITION,
        cells=[a.target for a in column.averages],
        printed=", ".join(f"{a.target.method} {a.target.text}" for a in column.averages[:3]),
        follows=f"{short(first.value(column.usual))} in the first row ({column.usual})",
        explanation="No row of the column is the plain mean of its members: it is weighted, or "
        "over others than the table shows.",
    )


def _explained(average: Average, policy: str) -> Contradiction:
    return Contradiction(
        certainty=Certainty.EXPLAINED,
        cells=[average.target],
        printed=average.target.text,
        follows=f"{short(average.value(policy))} from the printed members",
        explanation="The mean as printed is not exactly that of the printed members, but digits of "
        "the members that are not printed suffice.",
    )


def _cut(average: Average, policy: str) -> Contradiction:
    target, value = average.target, average.value(policy)
    return Contradiction(
        certainty=Certainty.LIKELY,
        cells=[target, *average.policies()[policy]],
        printed=target.text,
        follows=f"{short(value)} from the printed members",
        corrections=[f"{target.text} → {written(value, target.text)}"],
        explanation=f"No rounding of the members gives the printed mean.{CUT}",
    )


def _wrong(
    average: Average, usual: str, votes: int, places: dict[tuple, list[PrintedCell]]
) -> Contradiction:
    """Return the finding, with what tells whether the mean or a member is wrong.

    Deltas beside the mean were counted from it or from its members (`votes`); without them one slip
    that explains it tells, and of several such slips the one in a number outside its column.
    """
    target, members, value = average.target, average.policies()[usual], average.value(usual)
    slips = [] if votes > 0 else [(target, text) for text in _mean_slips(average, usual)[:1]]
    slips += [] if votes < 0 else _member_slips(target, members)
    strays = [s for s in slips if _strays(s, places[s[0].column])]
    slips = strays or slips
    suspects = {cell for cell, _ in slips}
    suspect = target if votes < 0 else suspects.pop() if len(suspects) == 1 else None
    named = [slip for slip in slips if slip[0] == suspect and suspect != target]
    fixes = [f"{cell}: {cell.text} → {text}" for cell, text in named[:2]]
    if votes <= 0:
        right = next((text for cell, text in slips if cell == target), written(value, target.text))
        fixes.append(f"{target.text} → {right}")
    off = target.value - value
    both = f"The mean or one of its members is wrong: the mean by {float(off):+.2f}, or a member "
    both += f"by {float(-off * len(members)):+.2f}."
    told = ""
    if votes > 0:
        told = " The deltas stand by the mean, so one of its members is wrong."
    elif votes < 0:
        told = " The deltas stand by the members, so the mean is wrong."
    if suspect and strays:
        told += f" One slip in {suspect}, which lies outside its column, explains it."
    elif named:
        told += f" One slip in {suspect} explains it, none in another number does."
    elif suspect and not votes:
        told += " One slip in the mean explains it, none in a member does."
    other = [p for p in average.policies() if p != usual and average.fits(p)]
    told += f" It would be the mean {' or '.join(other)}." if other else ""
    everyone = [target, *members]
    cells = [c for c in everyone if c == suspect] + [c for c in everyone if c != suspect]
    return Contradiction(
        certainty=Certainty.LIKELY if other else Certainty.CERTAIN,
        cells=cells,
        printed=target.text,
        follows=f"{short(value)}, the mean of {len(members)} cells ({usual})",
        corrections=fixes,
        explanation=both + told,
    )


def _mean_slips(average: Average, usual: str) -> list[str]:
    """Return what one slip turned into the printed mean, nearest to that of the members first."""
    text, value = average.target.text, average.value(usual)
    return repairs(text, lambda t: average.fits(usual, t), near=value)


def _member_slips(target: PrintedCell, members: Sequence[PrintedCell]) -> list[Slip]:
    """Return the slips in one member that would explain the mean."""
    slips = []
    for member in members:
        others = [c.interval() for c in members if c is not member]

        def right(text: str, others: list = others) -> bool:
            return target.interval().meets(mean([*others, printed(text)]))

        slips += [(member, text) for text in repairs(member.text, right)[:1]]
    return slips


def _strays(slip: Slip, column: Sequence[PrintedCell]) -> bool:
    """Say whether a number lies outside the others of its column, but mended inside."""
    cell, text = slip
    others = [c.value for c in column if c != cell]
    if len(others) < 4:
        return False
    return not min(others) <= cell.value <= max(others) and (
        min(others) <= printed(text).middle <= max(others)
    )


def _mixed(groups: dict[str, list[Average]]) -> Contradiction:
    rows = [average for group in groups.values() for average in group]
    policies = [p for p in (ALL, FOREGROUND) if p in groups or len(groups) == 1]
    rows_text = "; ".join(
        f"{policy}: {', '.join(f'{a.target.method} {a.target.text}' for a in group)}"
        for policy, group in groups.items()
    )
    table = "; ".join(
        f"{a.target.method} "
        + " / ".join(written(a.value(p), a.target.text) for p in policies if p in a.policies())
        for a in rows
    )
    return Contradiction(
        certainty=Certainty.DEFINITION,
        cells=[a.target for a in rows],
        printed=rows_text,
        follows=f"{' / '.join(policies)}: {table}",
        corrections=[f"every row: {policy}" for policy in policies],
        explanation="Rows of one column are means over different members and do not compare."
        + _turned(rows, policies),
    )


def _turned(rows: Sequence[Average], policies: Sequence[str]) -> str:
    """Say which rows change places when all are means over the same members."""
    turned = [
        f" On one footing {b.target.method} is above {a.target.method}."
        for a, b in permutations(rows, 2)
        if a.target.value > b.target.value
        and all(p in a.policies() and a.value(p) < b.value(p) for p in policies)
    ]
    return "".join(turned[:3])

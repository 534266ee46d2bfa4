"""Deltas: a printed difference against the two numbers that it is the difference of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from segsweep.audit.averages import recomputed
from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.numbers import Interval, agreed, exactly, printed, repairs, short, written

Form = Callable[[Interval, Interval], Interval]
FORMS: dict[str, Form] = {
    "differences": lambda value, reference: value - reference,
    "relative, in percent": lambda value, reference: (value / reference - exactly(1)) * 100,
    "relative": lambda value, reference: value / reference - exactly(1),
}
REFERENCES: dict[str, Form] = {  # the same solved for the reference, of value and delta
    "differences": lambda value, delta: value - delta,
    "relative, in percent": lambda value, delta: value * 100 / (delta + exactly(100)),
    "relative": lambda value, delta: value / (delta + exactly(1)),
}
Recomputed = Mapping[PrintedCell, Interval]


@dataclass(frozen=True)
class Delta:
    """A printed delta, the number of its row, and that of the reference row."""

    target: PrintedCell
    number: PrintedCell
    reference: PrintedCell

    @property
    def cells(self) -> list[PrintedCell]:
        """All three."""
        return [self.target, self.number, self.reference]

    def agrees(self, form: str, cut: bool = False, instead: Recomputed | None = None) -> bool:
        """Say whether the delta can be the one of the two numbers, or of what stands for them."""
        delta, *pair = ((instead or {}).get(cell, cell.interval(cut)) for cell in self.cells)
        return delta.meets(FORMS[form](*pair))

    def follows(self, form: str, instead: Recomputed) -> bool:
        """Say whether the delta is right by the printed numbers, or by members of wrong means."""
        choices = [{k: v} for k, v in instead.items() if k in self.cells]
        return any(self.agrees(form, instead=c) for c in ({}, *choices, instead))


def stated(cells: Sequence[PrintedCell]) -> Iterator[Delta]:
    """Yield the printed deltas that have a number in their row and a reference row."""
    for row in by(cells, lambda c: (c.source, c.table, c.model, c.backbone, c.dataset)).values():
        numbers = {(c.method, c.params, c.metric): c for c in row}
        for cell in row:
            if not (matched := re.fullmatch(r"delta_(.+)|(.+)_delta", cell.metric)):
                continue
            metric = matched[1] or matched[2]
            number = numbers.get((cell.method, cell.params, metric))
            reference = next((c for c in row if c.role.reference and c.metric == metric), None)
            if number and reference and number is not reference:
                yield Delta(cell, number, reference)


def usual_form(column: Sequence[Delta], instead: Recomputed) -> str:
    """Return the form that most deltas of a column have."""
    return max(FORMS, key=lambda form: sum(d.follows(form, instead) for d in column))


def columns(deltas: Iterable[Delta]) -> list[list[Delta]]:
    """Return the deltas of each column."""
    return list(by(deltas, lambda d: (*d.target.row[:2], d.target.metric)).values())


def votes(cells: Sequence[PrintedCell], instead: Recomputed) -> dict[PrintedCell, int]:
    """Return for every wrong mean how many deltas more stand by it than by its members."""
    result = dict.fromkeys(instead, 0)
    for column in columns(stated(cells)):
        form = usual_form(column, instead)
        for delta in column:
            for mean in instead.keys() & set(delta.cells[1:]):
                others = {k: v for k, v in instead.items() if k != mean}
                printed_ = delta.follows(form, others)
                members = delta.follows(form, {mean: instead[mean]}) and not printed_
                result[mean] += printed_ - members
    return result


def deltas(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A printed delta is the difference to the reference row, absolute or by equation 11.

    Of a mean that is wrong itself its members count as well: one slip, one finding.
    """
    instead = recomputed(cells)
    for column in columns(stated(cells)):
        if len(column) < 2:
            continue
        usual = usual_form(column, instead)
        wrong = [d for d in column if not d.follows(usual, instead)]
        by_reference = by(wrong, lambda d: d.reference)
        for reference, group in by_reference.items():
            blamed = _reference(reference, group, column) if len(group) > 1 else None
            if blamed:
                yield blamed
            else:
                yield from (_no_delta(d, usual, instead) for d in group)


def _reference(
    reference: PrintedCell, group: Sequence[Delta], column: Sequence[Delta]
) -> Contradiction | None:
    """Return the finding that one other reference would make most deltas of a column right."""
    all_of_it = [d for d in column if d.reference == reference]
    choices = []
    for form, solved in REFERENCES.items():
        base = exactly(-100 if form == "relative, in percent" else -1)
        usable = [
            d for d in all_of_it if form == "differences" or d.target.interval().low > base.high
        ]
        if usable:
            value, count = agreed(
                [solved(d.number.interval(), d.target.interval()) for d in usable]
            )
            choices.append((count, form, value))
    count, form, value = max(choices, key=lambda choice: choice[0])
    if count <= len(all_of_it) - len(group) or 2 * count <= len(all_of_it):
        return None
    fixes = repairs(reference.text, lambda t: printed(t).meets(value), near=value.middle)
    return Contradiction(
        certainty=Certainty.CERTAIN,
        cells=[reference, *(d.target for d in group)],
        printed=reference.text,
        follows=f"{short(value)}, by {count} deltas ({form})",
        corrections=[f"{reference.text} → {t}" for t in fixes[:1]]
        or [f"{reference.text} → {written(value.middle, reference.text)}"],
        explanation="The deltas agree on another number of the reference row.",
    )


def _no_delta(delta: Delta, usual: str, instead: Recomputed) -> Contradiction:
    target, number, reference = delta.cells
    value = FORMS[usual](number.interval(), reference.interval()).middle

    def right(cell: PrintedCell, text: str) -> bool:
        changed = (c.now(text) if c is cell else c for c in delta.cells)
        return Delta(*changed).agrees(usual)

    turned = format(-Decimal(target.text), "f")
    if sign := right(target, turned):
        fixes = [f"{target.text} → {turned}"]
    else:
        fixes = [
            f"{cell.metric} {cell.text} → {text}"
            for cell in (target, number)
            for text in repairs(cell.text, lambda t, c=cell: right(c, t))[:1]
        ]
    follows_wrong = bool(instead.keys() & set(delta.cells))
    cut = delta.agrees(usual, cut=True)
    return Contradiction(
        certainty=Certainty.unless(cut or follows_wrong),
        cells=delta.cells,
        printed=f"{target.text} for {number.text} against {reference.text}",
        follows=f"{short(value)} ({usual})",
        corrections=fixes,
        explanation=f"The column's other rows are {usual}, this one is not: the delta or one of "
        "the two numbers is wrong."
        + " Its sign is turned." * sign
        + " It may follow from the mean that is wrong." * follows_wrong
        + CUT * cut,
    )

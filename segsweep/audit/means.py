"""Means: an average against what it is the average of, and over what it was taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

from segsweep.audit.cells import Certainty, Contradiction, PrintedCell, by
from segsweep.audit.numbers import Interval, exactly, mean, printed, repairs, short, written

ALL = "all members"
FOREGROUND = "without background"
AVERAGE = re.compile(r"(average|mean|avg)\b.*|(all|overall)", re.IGNORECASE)
MEAN_METRIC = re.compile(r"(.+)_(mean|avg|average)")
CLASS_MEAN = re.compile(r"m(IoU|Acc|Dice|F1)")
BACKGROUND = frozenset(("background", "bg", "unlabeled", "unlabelled", "other"))


@dataclass(frozen=True)
class Average:
    """A printed mean and its members by name: classes, or data sets with models."""

    target: PrintedCell
    members: dict[str, PrintedCell]

    def policies(self) -> dict[str, list[PrintedCell]]:
        """Return the ways to choose what is averaged."""
        cells = list(self.members.values())
        policies = {ALL: cells}
        if CLASS_MEAN.fullmatch(self.target.metric):
            foreground = [c for name, c in self.members.items() if name.lower() not in BACKGROUND]
            return policies | {FOREGROUND: foreground} if len(foreground) < len(cells) else policies
        for word in dict.fromkeys(c.dataset for c in cells):
            policies[f"without {word}"] = [c for c in cells if c.dataset != word]
        for word in dict.fromkeys(c.model for c in cells):
            policies[f"{word} only"] = [c for c in cells if c.model == word]
        return {name: chosen for name, chosen in policies.items() if chosen}

    def fits(self, policy: str, text: str = "", cut: bool = False) -> bool:
        """Say whether the printed mean, or another, can be the one that a policy gives."""
        chosen = self.policies().get(policy)
        if not chosen:
            return False
        return printed(text or self.target.text, cut).meets(mean(c.interval(cut) for c in chosen))

    def value(self, policy: str) -> Fraction:
        """Return the mean of the printed members."""
        chosen = self.policies()[policy]
        return Fraction(sum(c.value for c in chosen), len(chosen))


def averages(cells: Sequence[PrintedCell]) -> Iterator[Average]:
    """Yield all printed means that have members in the same table."""
    tables = by(cells, lambda c: (c.source, c.table, c.method, c.params))
    for rows in tables.values():
        for target in rows:
            if matched := CLASS_MEAN.fullmatch(target.metric):
                start = f"{matched[1]}_"
                members = {
                    c.metric.removeprefix(start): c
                    for c in rows
                    if c.metric.startswith(start) and c.row == target.row
                }
            elif AVERAGE.fullmatch(target.dataset) or MEAN_METRIC.fullmatch(target.metric):
                members = _members(target, rows)
            else:
                continue
            if len(members) > 1:
                yield Average(target, members)


def _members(target: PrintedCell, rows: Sequence[PrintedCell]) -> dict[str, PrintedCell]:
    """Return the cells of single data sets that an average over data sets may stand for."""
    matched = MEAN_METRIC.fullmatch(target.metric)
    metric = matched[1] if matched else target.metric
    single = [c for c in rows if c.metric == metric and not AVERAGE.fullmatch(c.dataset)]
    same = [c for c in single if (c.model, c.backbone) == (target.model, target.backbone)]
    chosen = same or [c for c in single if c.model in target.model.split(" + ")]
    return {f"{c.model} {c.backbone} {c.dataset}": c for c in chosen if c is not target}


def means(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A printed mean is the mean of its members, all rows of a table over the same ones."""
    columns = by(averages(cells), lambda a: (a.target.source, a.target.table, a.target.metric))
    for column in columns.values():
        policies = list(dict.fromkeys(p for average in column for p in average.policies()))
        fitting = {p: [a for a in column if a.fits(p)] for p in policies}
        plain = [p for p in policies if p in (ALL, FOREGROUND) or len(fitting[p]) > 1]
        usual = max(plain, key=lambda p: len(fitting[p]))
        others: dict[str, list[Average]] = {}
        for average in column:
            if average.fits(usual):
                if not average.target.interval().meets(exactly(average.value(usual))):
                    why = "digits of the members that are not printed suffice"
                    yield _explained(average, usual, why)
                continue
            named = [p for p in (ALL, FOREGROUND) if average.fits(p)]
            if named:
                others.setdefault(named[0], []).append(average)
            elif average.fits(usual, cut=True):
                yield _explained(average, usual, "digits were cut off, not rounded")
            else:
                yield _wrong(average, usual)
        if others:
            yield _mixed({usual: fitting[usual], **others})


def _explained(average: Average, policy: str, why: str) -> Contradiction:
    value = short(average.value(policy))
    return Contradiction(
        certainty=Certainty.EXPLAINED,
        cells=[average.target],
        printed=average.target.text,
        follows=f"{value} from the printed members",
        explanation=f"The mean as printed is not exactly that of the printed members, but {why}.",
    )


def _wrong(average: Average, usual: str) -> Contradiction:
    target = average.target
    value = average.value(usual)
    corrected = repairs(target.text, lambda text: average.fits(usual, text), near=value)
    fixes = [f"{target.text} → {text}" for text in corrected[:1]]
    if not fixes:
        fixes = [f"{target.text} → {written(value, target.text)}", *_member_repairs(average, usual)]
    other = [p for p in average.policies() if p != usual and average.fits(p)]
    hint = f" It would be the mean {' or '.join(other)}." if other else ""
    return Contradiction(
        certainty=Certainty.LIKELY if other else Certainty.CERTAIN,
        cells=[target, *average.policies()[usual]],
        printed=target.text,
        follows=f"{short(value)}, the mean of {len(average.policies()[usual])} cells ({usual})",
        corrections=fixes,
        explanation=f"No rounding of the members gives the printed mean.{hint}",
    )


def _member_repairs(average: Average, policy: str) -> list[str]:
    """Return slips in a member that would explain the mean; few, or none are told."""
    chosen = average.policies()[policy]
    corrections = []
    for member in chosen:
        others = [c.interval() for c in chosen if c is not member]

        def right(text: str, others: list = others) -> bool:
            return average.target.interval().meets(mean([*others, printed(text)]))

        corrections += [f"{member}: {member.text} → {text}" for text in repairs(member.text, right)]
    return corrections if len(corrections) <= 4 else []


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


def deltas(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A printed delta is the difference to the reference row, absolute or by equation 11."""
    columns = by(_deltas(cells), lambda d: (d[0].source, d[0].table, d[0].metric))
    for column in columns.values():
        fitting = {name: [d for d in column if _agrees(d, name)] for name in FORMS}
        usual = max(FORMS, key=lambda name: len(fitting[name]))
        if len(column) > 1:
            yield from (_no_delta(d, usual) for d in column if d not in fitting[usual])


def _no_delta(delta: tuple[PrintedCell, PrintedCell, PrintedCell], usual: str) -> Contradiction:
    target, cell, reference = delta
    value = FORMS[usual](cell.interval(), reference.interval()).middle

    def right(text: str) -> bool:
        return _agrees((target.now(text), cell, reference), usual)

    return Contradiction(
        certainty=Certainty.EXPLAINED if _agrees(delta, usual, cut=True) else Certainty.CERTAIN,
        cells=delta,
        printed=f"{target.text} for {cell.text} against {reference.text}",
        follows=f"{short(value)} ({usual})",
        corrections=[f"{target.text} → {t}" for t in repairs(target.text, right, near=value)[:1]],
        explanation=f"The column's other rows are {usual}, this one is not.",
    )


FORMS: dict[str, Callable[[Interval, Interval], Interval]] = {
    "differences": lambda value, reference: value - reference,
    "relative, in percent": lambda value, reference: (value / reference - exactly(1)) * 100,
    "relative": lambda value, reference: value / reference - exactly(1),
}


def _deltas(cells: Sequence[PrintedCell]) -> Iterator[tuple[PrintedCell, PrintedCell, PrintedCell]]:
    """Yield printed deltas with the number of their row and that of the reference row."""
    for row in by(cells, lambda c: (c.source, c.table, c.model, c.backbone, c.dataset)).values():
        numbers = {(c.method, c.params, c.metric): c for c in row}
        for cell in row:
            if not (matched := re.fullmatch(r"delta_(.+)|(.+)_delta", cell.metric)):
                continue
            metric = matched[1] or matched[2]
            number = numbers.get((cell.method, cell.params, metric))
            reference = next((c for c in row if c.role.reference and c.metric == metric), None)
            if number and reference and number is not reference:
                yield cell, number, reference


def _agrees(
    delta: tuple[PrintedCell, PrintedCell, PrintedCell], form: str, cut: bool = False
) -> bool:
    target, number, reference = (cell.interval(cut) for cell in delta)
    return target.meets(FORMS[form](number, reference))

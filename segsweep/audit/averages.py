"""Averages: printed means with what they are averages of, and over what they were taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.numbers import Interval, mean, printed

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


@dataclass(frozen=True)
class MeanColumn:
    """The printed means of one column, and the policy that most of them follow."""

    averages: list[Average]
    usual: str

    def other(self, average: Average) -> str:
        """Return the other way of averaging that a mean follows, if any."""
        named = [p for p in (ALL, FOREGROUND) if p != self.usual and average.fits(p)]
        return named[0] if named else ""

    def wrong(self) -> list[Average]:
        """Return the means that follow no way of averaging, cut or rounded."""
        return [
            a
            for a in self.averages
            if not (a.fits(self.usual) or self.other(a) or a.fits(self.usual, cut=True))
        ]

    @property
    def plain(self) -> bool:
        """Whether it is a column of plain means at all: of three or more not all are wrong."""
        return len(self.averages) < 3 or len(self.wrong()) < len(self.averages)


def mean_columns(cells: Sequence[PrintedCell]) -> list[MeanColumn]:
    """Return all columns of printed means."""
    result = []
    columns = by(averages(cells), lambda a: (a.target.source, a.target.table, a.target.metric))
    for column in columns.values():
        policies = list(dict.fromkeys(p for average in column for p in average.policies()))
        fitting = {p: sum(a.fits(p) for a in column) for p in policies}
        plain = [p for p in policies if p in (ALL, FOREGROUND) or fitting[p] > 1]
        result.append(MeanColumn(column, max(plain, key=lambda p: fitting[p])))
    return result


def recomputed(cells: Sequence[PrintedCell]) -> dict[PrintedCell, Interval]:
    """Return for every wrong mean what its members give instead."""
    return {
        a.target: mean(c.interval() for c in a.policies()[column.usual])
        for column in mean_columns(cells)
        for a in (column.wrong() if column.plain else [])
    }

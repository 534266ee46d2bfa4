"""Printed numbers as what they stand for: intervals of exact fractions, and their digits.

A printed 42.95 is a number in [42.945, 42.955] if it was rounded, and in [42.95, 42.96] if digits
were cut off. Sums and quotients of intervals contain all values that the true numbers may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included."""

    low: Fraction
    high: Fraction

    @property
    def middle(self) -> Fraction:
        """The number in the middle."""
        return (self.low + self.high) / 2

    def meets(self, other: Interval) -> bool:
        """Say whether a number lies in both."""
        return self.low <= other.high and other.low <= self.high

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, factor: Fraction | int) -> Interval:
        ends = self.low * factor, self.high * factor
        return Interval(min(ends), max(ends))

    def __truediv__(self, other: Interval) -> Interval:
        """Divide by an interval of positive numbers."""
        ends = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(ends), max(ends))


def exactly(value: Fraction | int | str) -> Interval:
    """Return the interval of one number."""
    return Interval(Fraction(value), Fraction(value))


def decimals(text: str) -> int:
    """Return how many digits stand behind the point."""
    return len(text.partition(".")[2])


def printed(text: str, cut: bool = False) -> Interval:
    """Return what a printed number may stand for; `cut`: rounded or cut off."""
    value, unit = Fraction(text), Fraction(1, 10 ** decimals(text))
    if not cut:
        return Interval(value - unit / 2, value + unit / 2)
    beyond = unit if value >= 0 else -unit
    ends = value - beyond / 2, value + beyond
    return Interval(min(ends), max(ends))


def mean(values: Iterable[Interval]) -> Interval:
    """Return the interval of the mean of some numbers."""
    values = list(values)
    total = sum(values[1:], start=values[0])
    return total * Fraction(1, len(values))


def agreed(intervals: Sequence[Interval]) -> tuple[Interval, int]:
    """Return where most intervals overlap, and how many do."""
    edges = [i.low for i in intervals]
    best = max(edges, key=lambda edge: sum(i.low <= edge <= i.high for i in intervals))
    chosen = [i for i in intervals if i.low <= best <= i.high]
    return Interval(best, min(i.high for i in chosen)), len(chosen)


def written(value: Fraction, like: str) -> str:
    """Return a number with as many digits behind the point as another has."""
    return f"{float(value):.{decimals(like)}f}"


def short(value: Fraction | Interval) -> str:
    """Return a number, or the two ends of an interval, with four decimals at most."""
    if isinstance(value, Interval):
        ends = short(value.low), short(value.high)
        return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    text = f"{float(value):.4f}"
    return text.rstrip("0").rstrip(".")


def slips(text: str) -> Iterator[str]:
    """Yield the numbers that one wrong digit, or two neighbours swapped, would turn into `text`."""
    for place, digit in enumerate(text):
        if not digit.isdigit():
            continue
        for other in "0123456789":
            changed = text[:place] + other + text[place + 1 :]
            if other != digit and not _leading_zero(changed):
                yield changed
    for place, (a, b) in enumerate(pairwise(text)):
        if a.isdigit() and b.isdigit() and a != b:
            changed = text[:place] + b + a + text[place + 2 :]
            if not _leading_zero(changed):
                yield changed


def rescaled(text: str) -> list[str]:
    """Return a share of 1 in percent, and a percentage as a share of 1."""
    return [format(Decimal(text).scaleb(places), "f") for places in (2, -2)]


def repairs(text: str, right: Callable[[str], bool], near: Fraction | None = None) -> list[str]:
    """Return the numbers one slip away from `text` that are right, nearest to `near` first.

    Percent for a share of 1, and the other way round, is a slip as well.
    """
    candidates = [t for t in dict.fromkeys((*slips(text), *rescaled(text))) if right(t)]
    target = Fraction(text) if near is None else near
    return sorted(candidates, key=lambda other: abs(Fraction(other) - target))


def _leading_zero(text: str) -> bool:
    return len(text) > 1 and text[0] == "0" and text[1] != "."

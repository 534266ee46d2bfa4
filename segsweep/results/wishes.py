"""What a use asks of a setting: limits that must hold, what errors cost, what smaller may cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from statistics import fmean

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
from segsweep.metrics.learnt import FLOOR
from segsweep.results.candidates import LATENCY, SIZE, Candidate, OperatingPoint

UNITS = {LATENCY: " ms", SIZE: " MB"}
LIMIT = re.compile(r"(.+?)\s*(>=|<=|≥|≤)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Limit:
    """What must hold: `what` is at most, or at least, `bound`."""

    what: str
    at_most: bool
    bound: float

    def met(self, candidate: Candidate) -> bool:
        """Say whether a candidate holds it; what was not measured does not."""
        return self.distance(candidate) <= 0

    def distance(self, candidate: Candidate) -> float:
        """Return by how much a candidate breaks it, infinity where nothing measured it."""
        value = candidate.measured().get(self.what)
        if value is None:
            return inf
        return value - self.bound if self.at_most else self.bound - value

    def text(self) -> str:
        """Return "latency ≤ 20.00 ms"."""
        sign = "≤" if self.at_most else "≥"
        return f"{self.what} {sign} {self.bound:.2f}{UNITS.get(self.what, '')}"


@dataclass(frozen=True)
class Wishes:
    """What the use asks for; a cost is in any unit, per object missed and per false alarm.

    `margin` is what a smaller setting may cost, and a best metric below `floor` means that nothing
    has been learnt, both in points of the metric.
    """

    latency: float | None = None
    size: float | None = None
    miss_cost: float = 0.0
    false_alarm_cost: float = 0.0
    must: list[Limit] = field(default_factory=list)
    margin: float = 1.0
    floor: float = FLOOR

    def limits(self) -> list[Limit]:
        """Return the caps that are given and what must pass."""
        caps = {LATENCY: self.latency, SIZE: self.size}
        return [*(Limit(k, True, v) for k, v in caps.items() if v is not None), *self.must]

    def priced(self) -> bool:
        """Say whether errors cost anything."""
        return self.miss_cost > 0 or self.false_alarm_cost > 0

    def cheapest(self, candidate: Candidate) -> list[OperatingPoint]:
        """Return the point of least expected cost of each run that kept predictions."""
        return [min(points, key=self.cost) for points in candidate.outcomes]

    def cost(self, point: OperatingPoint) -> float:
        """Return the expected cost per 1,000 objects."""
        return self.miss_cost * point.missed + self.false_alarm_cost * point.false

    def price(self, candidate: Candidate) -> float:
        """Return the mean least cost of a candidate, infinity where no predictions were kept."""
        points = self.cheapest(candidate)
        return fmean(map(self.cost, points)) if points else inf


def parse_limit(text: str, known: Iterable[str]) -> Limit:
    """Read "camera=night>=40". Raises UserError for what nothing measured."""
    match = LIMIT.fullmatch(text)
    names = list(known)
    if not match:
        raise UserError(f"--must-pass {text!r}: say what and how much, as in 'segm_APs>=30'")
    what, sign, bound = match.groups()
    if what not in names:
        raise UserError(f"--must-pass {text!r}: no finished run has {what!r}{choices(what, names)}")
    return Limit(what, sign in ("<=", "≤"), float(bound))

"""What a use asks for: caps, requirements that must pass, and what errors cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
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
    """What the use asks for; a cost is in any unit, per object missed and per false alarm."""

    latency: float | None = None
    size: float | None = None
    miss_cost: float = 0.0
    false_alarm_cost: float = 0.0
    must: list[Limit] = field(default_factory=list)

    def limits(self) -> list[Limit]:
        """Return the caps that are given and what must pass."""
        caps = {LATENCY: self.latency, SIZE: self.size}
        return [*(Limit(k, True, v) for k, v in caps.items() if v is not None), *self.must]

    def priced(self) -> bool:
        """Say whether errors cost anything."""
        return self.miss_cost > 0 or self.false_alarm_cost > 0

    def cheapest(self, points: Sequence[OperatingPoint]) -> OperatingPoint:
        """Return the operating point of least expected cost, of equal ones the first."""
        return min(points, key=self.cost)

    def cost(self, point: OperatingPoint) -> float:
        """Return the expected cost per 1,000 objects."""
        return self.miss_cost * point.missed + self.false_alarm_cost * point.false

    def costs(self, candidate: Candidate) -> list[float]:
        """Return the least expected cost of each run that kept predictions."""
        return [self.cost(self.cheapest(points)) for points in candidate.outcomes]


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

"""Which setting to use for a task: what qualifies, what to choose and why, what it leaves behind.

A task is a data set with its candidates. Limits (latency, size, slices that must pass) rule
candidates out; of those that remain the best is the one of least expected cost of errors where
costs are given, else of best metric. Whatever is within noise over seeds of the best is as good,
and then the smallest is chosen. `page.js` does the same in the browser, with the same sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean, stdev
from typing import NamedTuple

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
from segsweep.pages.report.sentences import said
from segsweep.results.evidence import ENOUGH, pooled, within_noise

REFERENCE = "full_head"
LATENCY, SIZE = "latency", "size"
UNITS = {LATENCY: " ms", SIZE: " MB"}
LIMIT = re.compile(r"(.+?)\s*(>=|<=|≥|≤)\s*(-?\d+(?:\.\d+)?)\s*")


class Point(NamedTuple):
    """What a score threshold means: objects missed and false alarms, each per 1,000 objects."""

    score: float
    missed: float
    false: float


@dataclass(frozen=True)
class Candidate:
    """One setting; `values` holds the metric of each run, `outcomes` its operating points."""

    name: str
    model: str
    method: str
    values: list[float]
    trained: float  # parameters
    size: float  # MB that are stored per task
    latency: float | None = None  # ms an image
    measures: dict[str, float] = field(default_factory=dict)
    outcomes: list[list[Point]] = field(default_factory=list)

    def measured(self, what: str) -> float | None:
        """Return what a limit is about, None where nothing measured it."""
        return {LATENCY: self.latency, SIZE: self.size}.get(what, self.measures.get(what))


@dataclass(frozen=True)
class Task:
    """A data set and the settings that were tried on it; the names of these differ."""

    name: str
    metric: str
    unit: str
    higher: bool
    candidates: list[Candidate]

    def measures(self) -> list[str]:
        """Return everything that a limit can be put on, beside latency and size."""
        return list(dict.fromkeys(name for one in self.candidates for name in one.measures))


@dataclass(frozen=True)
class Limit:
    """What must hold: `what` is at most, or at least, `bound`."""

    what: str
    at_most: bool
    bound: float

    def met(self, candidate: Candidate) -> bool:
        """Say whether a candidate holds it; what was not measured does not."""
        value = candidate.measured(self.what)
        if value is None:
            return False
        return value <= self.bound if self.at_most else value >= self.bound

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

    def cheapest(self, points: Sequence[Point]) -> Point:
        """Return the operating point of least expected cost, of equal ones the first."""
        return min(points, key=self.cost)

    def cost(self, point: Point) -> float:
        """Return the expected cost per 1,000 objects."""
        return self.miss_cost * point.missed + self.false_alarm_cost * point.false


@dataclass(frozen=True)
class Decision:
    """The choice, if anything qualifies; what each other candidate breaks; all of it in words."""

    chosen: str | None
    qualifying: list[str]
    broken: dict[str, list[str]]
    words: list[str]


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


def decide(task: Task, wishes: Wishes) -> Decision:
    """Choose among the candidates of a task."""
    limits = wishes.limits()
    tried = [one for one in task.candidates if one.values]
    broken = {c.name: [limit.text() for limit in limits if not limit.met(c)] for c in tried}
    fit = [one for one in tried if not broken[one.name]]
    if not fit:
        return Decision(None, [], broken, _nothing(task, tried, limits))
    priced = [one for one in fit if one.outcomes] if wishes.priced() else []
    ranked, costs = priced or fit, wishes if priced else None
    gains = {one.name: _gains(task, one, costs) for one in ranked}  # nor do others tell the noise
    best = max(ranked, key=lambda one: fmean(gains[one.name]))
    tied = [o for o in ranked if o is best or _alike(gains, o, best)]
    chosen = min(tied, key=lambda one: (one.size, inf if one.latency is None else one.latency))
    words = [
        said("choice", name=chosen.name, value=_value(task, chosen), size=_mb(chosen.size),
              latency=_ms(chosen)),
        _why(task, fit, best, chosen, costs),
        _price(task, wishes, chosen, costs is not None),
        _left(task, chosen),
    ]  # fmt: skip
    return Decision(chosen.name, [one.name for one in fit], broken, words)


def _gains(task: Task, one: Candidate, costs: Wishes | None) -> list[float]:
    """Return for every run what is to be as high as possible; nothing where costs are unknown."""
    if costs is None:
        return [value if task.higher else -value for value in one.values]
    return [-costs.cost(costs.cheapest(points)) for points in one.outcomes]


def _alike(gains: dict[str, list[float]], one: Candidate, other: Candidate) -> bool | None:
    """Say whether two candidates are within noise; None where no seeds tell what noise is."""
    shared = pooled(gains.values())
    spreads = []
    for own in (gains[one.name], gains[other.name]):
        sd = stdev(own) if len(own) >= ENOUGH else shared
        if sd is None:
            return None
        spreads.append((sd, len(own)))
    return within_noise(fmean(gains[one.name]) - fmean(gains[other.name]), *spreads)


def _why(
    task: Task, fit: list[Candidate], best: Candidate, chosen: Candidate, costs: Wishes | None
) -> str:
    if len(fit) == 1:
        return said("only")
    if chosen is best:
        return said("best", n=str(len(fit)))
    there = _value(task, best)
    if costs is not None:
        there = said("worth", cost=_spread([-gain for gain in _gains(task, best, costs)]))
    return said("tie", best=best.name, there=there, size=_mb(best.size))


def _price(task: Task, wishes: Wishes, chosen: Candidate, known: bool) -> str:
    if not known:
        return said("unpriced" if wishes.priced() else "free", metric=task.metric)
    points = [wishes.cheapest(points) for points in chosen.outcomes]
    missed, false, score = (
        fmean(values) for values in ([p.missed for p in points], [p.false for p in points],
                                     [p.score for p in points])
    )  # fmt: skip
    cost = fmean(wishes.cost(point) for point in points)
    return said("cost", cost=f"{cost:.2f}", missed=f"{missed:.1f}", false=f"{false:.1f}",
                 score=f"{score:.2f}")  # fmt: skip


def gap(task: Task, one: Candidate) -> tuple[Candidate, float, bool | None] | None:
    """Return the full head of a candidate's model, how far above it is, and whether that is noise.

    None where no full head has finished; noise is None where no seeds tell.
    """
    tried = [other for other in task.candidates if other.values]
    gains = {other.name: _gains(task, other, None) for other in tried}
    heads = [o for o in tried if (o.method, o.model) == (REFERENCE, one.model)]
    if not heads or not one.values:
        return None
    head = max(heads, key=lambda other: fmean(gains[other.name]))
    above = fmean(gains[one.name]) - fmean(gains[head.name])
    return head, above, _alike(gains, one, head)


def _left(task: Task, chosen: Candidate) -> str:
    """Say what PEFT loses against the full head: the choice, or the best of all if that is it."""
    one = chosen
    if chosen.method == REFERENCE:
        own = [c for c in task.candidates if c.values and c.model == chosen.model]
        others = [other for other in own if other.method != REFERENCE]
        if not others:
            return ""
        one = max(others, key=lambda other: fmean(_gains(task, other, None)))
    found = gap(task, one)
    if found is None:
        return said("no_reference", model=chosen.model)
    head, above, alike = found
    return said(
        "left" if above <= 0 else "ahead",
        name=one.name,
        gap=f"{abs(above):.2f} {task.metric}",
        value=_value(task, head),
        noise=said("unknown" if alike is None else "noise" if alike else "real"),
    )


def _nothing(task: Task, tried: list[Candidate], limits: list[Limit]) -> list[str]:
    """Say which limit binds: without it something would qualify; else what each rules out."""
    if not tried:
        return [said("empty")]
    words = [said("nothing")]
    for limit in limits:
        known = [one for one in tried if one.measured(limit.what) is not None]
        if not known:
            cure = said("bench") if limit.what == LATENCY else ""
            words.append(said("unmeasured", limit=limit.text(), cure=cure))
            continue
        missed = [one for one in tried if not limit.met(one)]
        free = [o for o in missed if all(other.met(o) for other in limits if other is not limit)]
        nearest = min(free or known, key=lambda one: _distance(limit, one))
        values = {"limit": limit.text(), "name": nearest.name, "value": _here(limit, nearest)}
        if free and nearest.measured(limit.what) is not None:
            words.append(said("binding", **values))
        elif missed:
            words.append(said("conflict", k=str(len(missed)), n=str(len(tried)), **values))
    return words


def _distance(limit: Limit, one: Candidate) -> float:
    value = one.measured(limit.what)
    if value is None:
        return inf
    return value - limit.bound if limit.at_most else limit.bound - value


def _here(limit: Limit, one: Candidate) -> str:
    value = one.measured(limit.what)
    return f"{limit.what} {value:.2f}{UNITS.get(limit.what, '')}" if value is not None else ""


def _value(task: Task, one: Candidate) -> str:
    return f"{task.metric} {_spread(one.values)}"


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _mb(size: float) -> str:
    return f"{size:.2f} MB"


def _ms(one: Candidate) -> str:
    return said("not_measured") if one.latency is None else f"{one.latency:.2f} ms an image"

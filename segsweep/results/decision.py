"""Which setting to use for a data set: what qualifies, what to choose and why, what it leaves.

Limits (latency, size, slices that must pass) rule candidates out; of those that remain the best is
the one of least expected cost of errors where costs are given, else of best metric. Whatever is
within noise over seeds of the best is as good, and then the smallest is chosen. `brief` has all
numbers and sentences that hold whatever is wished for: a page only filters and compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean, stdev
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
from segsweep.results.candidates import LATENCY, SIZE, Candidate, Contest, OperatingPoint
from segsweep.results.evidence import ENOUGH, FACTOR, pooled, within_noise

UNITS = {LATENCY: " ms", SIZE: " MB"}
LIMIT = re.compile(r"(.+?)\s*(>=|<=|≥|≤)\s*(-?\d+(?:\.\d+)?)\s*")

WORDS = {
    "choice": "Choose {name}: {value}, {size} to store per task, {latency}.",
    "only": "Nothing else qualifies.",
    "best": "It is the best of the {n} settings that qualify.",
    "tie": "{best} ({there}) is not better by more than the noise over seeds, and takes {size}.",
    "worth": "expected cost {cost}",
    "cost": "Expected cost of errors: {cost} per 1,000 objects, from {missed} missed and {false} "
    "false alarms at a score of {score}.",
    "free": "No costs of errors are given, so the choice is by {metric} alone.",
    "unpriced": "No setting that qualifies kept predictions, so the cost of errors is unknown and "
    "the choice is by {metric}.",
    "left": "{name} leaves {gap} on the table against the full head ({value}){noise}.",
    "ahead": "{name} is {gap} above the full head ({value}){noise}.",
    "noise": ": within noise over seeds",
    "real": ": more than noise over seeds",
    "unknown": "; how much of that is noise only more seeds can tell",
    "no_reference": "No full head of {model} has finished: what PEFT leaves on the table is not "
    "known.",
    "nothing": "Nothing qualifies.",
    "empty": "No run has finished on this data set yet.",
    "binding": "{limit} is what binds: without it {name} qualifies ({value}).",
    "conflict": "{limit} rules out {k} of {n}; the nearest is {name} ({value}).",
    "unmeasured": "{limit} cannot be judged, nothing measured it{cure}.",
    "bench": ": python -m segsweep bench",
    "not_measured": "latency not measured",
}


def worded(key: str, **values: object) -> str:
    """Return a sentence, or a part of one, with its values."""
    return WORDS[key].format(**values)


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


@dataclass(frozen=True)
class Decision:
    """The choice, if anything qualifies; what each other candidate breaks; all of it in words."""

    chosen: str | None
    qualifying: list[str]
    broken: dict[str, list[str]]
    words: list[str]


@dataclass(frozen=True)
class Gap:
    """How far a candidate is above its full head; `noise` is None where no seeds tell."""

    reference: Candidate
    above: float
    noise: bool | None


def decide(contest: Contest, wishes: Wishes) -> Decision:
    """Choose among the candidates of a data set."""
    limits, tried = wishes.limits(), contest.tried()
    broken = {c.name: [limit.text() for limit in limits if not limit.met(c)] for c in tried}
    fit = [c for c in tried if not broken[c.name]]
    if not fit:
        return Decision(None, [], broken, _nothing(tried, limits))
    priced = [c for c in fit if c.outcomes] if wishes.priced() else []
    ranked = priced or fit  # nor do others tell the noise
    costs = {c.name: [-cost for cost in wishes.costs(c)] for c in priced}
    gains = costs or {c.name: contest.gains(c) for c in ranked}
    best = max(ranked, key=lambda c: fmean(gains[c.name]))
    tied = [c for c in ranked if c is best or _alike(gains, c, best)]
    chosen = min(tied, key=Candidate.burden)
    there = worded("worth", cost=_spread(wishes.costs(best))) if priced else _value(contest, best)
    if len(fit) == 1:
        why = worded("only")
    elif chosen is best:
        why = worded("best", n=len(fit))
    else:
        why = worded("tie", best=best.name, there=there, size=_mb(best))
    unpriced = worded("unpriced" if wishes.priced() else "free", metric=contest.metric)
    price = _price(wishes, chosen) if priced else unpriced
    words = [_choice(contest, chosen), why, price, _left(contest, chosen)]
    return Decision(chosen.name, [c.name for c in fit], broken, words)


def brief(contest: Contest) -> dict[str, Any]:
    """Return all that holds whatever is wished for, as a page takes it in.

    `gain` is the number, the mean and the summed squared deviations of what shall be high, None
    without a run; `burden` is the place in the order of size and latency.
    """
    burdens = sorted(contest.candidates, key=Candidate.burden)
    return {
        "metric": contest.metric,
        "candidates": [
            {
                "name": c.name,
                "burden": burdens.index(c),
                "measured": c.measured(),
                "gain": _moments(contest.gains(c)) if c.values else None,
                "outcomes": c.outcomes,
                "value": _value(contest, c) if c.values else "",
                "size": _mb(c),
                "choice": _choice(contest, c) if c.values else "",
                "left": _left(contest, c) if c.values else "",
            }
            for c in contest.candidates
        ],
    }


def terms() -> dict[str, Any]:
    """Return what all decisions share: sentences, units, and when a difference is noise."""
    return {"words": WORDS, "units": UNITS, "enough": ENOUGH, "factor": FACTOR}


def gap(contest: Contest, candidate: Candidate) -> Gap | None:
    """Return how far a candidate is above its full head, None where none has finished."""
    tried = contest.tried()
    heads = [c for c in tried if c.reference and c.model == candidate.model]
    if not heads or not candidate.values:
        return None
    gains = {c.name: contest.gains(c) for c in tried}
    head = max(heads, key=lambda c: fmean(gains[c.name]))
    above = fmean(gains[candidate.name]) - fmean(gains[head.name])
    return Gap(head, above, _alike(gains, candidate, head))


def _alike(gains: dict[str, list[float]], a: Candidate, b: Candidate) -> bool | None:
    """Say whether two candidates are within noise; None where no seeds tell what noise is."""
    shared = pooled(gains.values())
    both = gains[a.name], gains[b.name]
    first, second = (stdev(values) if len(values) >= ENOUGH else shared for values in both)
    if first is None or second is None:
        return None
    spreads = (first, len(both[0])), (second, len(both[1]))
    return within_noise(fmean(both[0]) - fmean(both[1]), *spreads)


def _moments(values: list[float]) -> dict[str, float]:
    mean = fmean(values)
    return {"n": len(values), "mean": mean, "square": sum((v - mean) ** 2 for v in values)}


def _choice(contest: Contest, c: Candidate) -> str:
    latency = worded("not_measured") if c.latency is None else f"{c.latency:.2f} ms an image"
    return worded("choice", name=c.name, value=_value(contest, c), size=_mb(c), latency=latency)


def _price(wishes: Wishes, chosen: Candidate) -> str:
    points = [wishes.cheapest(points) for points in chosen.outcomes]
    score, missed, false = (fmean(values) for values in zip(*points, strict=True))
    numbers = {"missed": f"{missed:.1f}", "false": f"{false:.1f}", "score": f"{score:.2f}"}
    return worded("cost", cost=f"{fmean(wishes.costs(chosen)):.2f}", **numbers)


def _left(contest: Contest, chosen: Candidate) -> str:
    """Say what PEFT loses against the full head: the choice, or the best of all if that is it."""
    compared = chosen
    if chosen.reference:
        others = [c for c in contest.tried() if c.model == chosen.model and not c.reference]
        if not others:
            return ""
        compared = max(others, key=lambda c: fmean(contest.gains(c)))
    distance = gap(contest, compared)
    if distance is None:
        return worded("no_reference", model=chosen.model)
    return worded(
        "left" if distance.above <= 0 else "ahead",
        name=compared.name,
        gap=f"{abs(distance.above):.2f} {contest.metric}",
        value=_value(contest, distance.reference),
        noise=worded({None: "unknown", True: "noise", False: "real"}[distance.noise]),
    )


def _nothing(tried: list[Candidate], limits: list[Limit]) -> list[str]:
    """Say which limit binds: without it something would qualify; else what each rules out."""
    if not tried:
        return [worded("empty")]
    words = [worded("nothing")]
    for limit in limits:
        known = [c for c in tried if limit.distance(c) < inf]
        if not known:
            cure = worded("bench") if limit.what == LATENCY else ""
            words.append(worded("unmeasured", limit=limit.text(), cure=cure))
            continue
        missed = [c for c in tried if not limit.met(c)]
        free = [c for c in missed if all(other.met(c) for other in limits if other is not limit)]
        nearest = min(free or known, key=limit.distance)
        here = nearest.measured().get(limit.what)
        value = "" if here is None else f"{limit.what} {here:.2f}{UNITS.get(limit.what, '')}"
        values = {"limit": limit.text(), "name": nearest.name, "value": value}
        if free and nearest in known:
            words.append(worded("binding", **values))
        elif missed:
            words.append(worded("conflict", k=len(missed), n=len(tried), **values))
    return words


def _value(contest: Contest, c: Candidate) -> str:
    return f"{contest.metric} {_spread(c.values)}"


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _mb(c: Candidate) -> str:
    return f"{c.size:.2f} MB"

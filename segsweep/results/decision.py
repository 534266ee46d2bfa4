"""Which setting to use for a data set: what qualifies, what to choose and why, what it leaves.

Limits (latency, size, slices that must pass) rule candidates out; of those that remain the best is
the one of least expected cost of errors where costs are given, else of best metric. Whatever is
within noise over seeds of the best is as good, and then the smallest is chosen. `brief` has all
numbers and sentences that hold whatever is wished for: a page only filters and compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import fmean, stdev
from typing import Any

from segsweep.results.candidates import LATENCY, Candidate, Contest
from segsweep.results.evidence import ENOUGH, FACTOR, pooled, within_noise
from segsweep.results.wishes import UNITS, Limit, Wishes

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


def said(key: str, **values: object) -> str:
    """Return a sentence, or a part of one, with its values."""
    return WORDS[key].format(**values)


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
    if priced:
        gains = {c.name: [-cost for cost in wishes.costs(c)] for c in ranked}
    else:
        gains = {c.name: contest.gains(c) for c in ranked}
    best = max(ranked, key=lambda c: fmean(gains[c.name]))
    tied = [c for c in ranked if c is best or _alike(gains, c, best)]
    chosen = min(tied, key=Candidate.burden)
    there = said("worth", cost=_spread(wishes.costs(best))) if priced else _value(contest, best)
    if len(fit) == 1:
        why = said("only")
    elif chosen is best:
        why = said("best", n=len(fit))
    else:
        why = said("tie", best=best.name, there=there, size=_mb(best))
    price = _price(wishes, chosen) if priced else said(
        "unpriced" if wishes.priced() else "free", metric=contest.metric)  # fmt: skip
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
    spreads = []
    for values in (gains[a.name], gains[b.name]):
        sd = stdev(values) if len(values) >= ENOUGH else shared
        if sd is None:
            return None
        spreads.append((sd, len(values)))
    return within_noise(fmean(gains[a.name]) - fmean(gains[b.name]), *spreads)


def _moments(values: list[float]) -> dict[str, float]:
    mean = fmean(values)
    return {"n": len(values), "mean": mean, "square": sum((v - mean) ** 2 for v in values)}


def _choice(contest: Contest, c: Candidate) -> str:
    latency = said("not_measured") if c.latency is None else f"{c.latency:.2f} ms an image"
    value = _value(contest, c)
    return said("choice", name=c.name, value=value, size=_mb(c), latency=latency)


def _price(wishes: Wishes, chosen: Candidate) -> str:
    points = [wishes.cheapest(points) for points in chosen.outcomes]
    score, missed, false = (fmean(values) for values in zip(*points, strict=True))
    cost = fmean(wishes.costs(chosen))
    return said("cost", cost=f"{cost:.2f}", missed=f"{missed:.1f}", false=f"{false:.1f}",
                score=f"{score:.2f}")  # fmt: skip


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
        return said("no_reference", model=chosen.model)
    return said(
        "left" if distance.above <= 0 else "ahead",
        name=compared.name,
        gap=f"{abs(distance.above):.2f} {contest.metric}",
        value=_value(contest, distance.reference),
        noise=said("unknown" if distance.noise is None else "noise" if distance.noise else "real"),
    )


def _nothing(tried: list[Candidate], limits: list[Limit]) -> list[str]:
    """Say which limit binds: without it something would qualify; else what each rules out."""
    if not tried:
        return [said("empty")]
    words = [said("nothing")]
    for limit in limits:
        known = [c for c in tried if limit.distance(c) < inf]
        if not known:
            cure = said("bench") if limit.what == LATENCY else ""
            words.append(said("unmeasured", limit=limit.text(), cure=cure))
            continue
        missed = [c for c in tried if not limit.met(c)]
        free = [c for c in missed if all(other.met(c) for other in limits if other is not limit)]
        nearest = min(free or known, key=limit.distance)
        values = {"limit": limit.text(), "name": nearest.name, "value": _here(limit, nearest)}
        if free and nearest in known:
            words.append(said("binding", **values))
        elif missed:
            words.append(said("conflict", k=len(missed), n=len(tried), **values))
    return words


def _here(limit: Limit, c: Candidate) -> str:
    value = c.measured().get(limit.what)
    return f"{limit.what} {value:.2f}{UNITS.get(limit.what, '')}" if value is not None else ""


def _value(contest: Contest, c: Candidate) -> str:
    return f"{contest.metric} {_spread(c.values)}"


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _mb(c: Candidate) -> str:
    return f"{c.size:.2f} MB"

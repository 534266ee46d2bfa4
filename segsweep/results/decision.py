"""Which setting to use for a data set: what qualifies, what to choose and why, what it leaves.

Limits (latency, size, slices that must pass) rule candidates out, and so does being unstable over
seeds. Of those that remain the best metric is what others are measured by: a setting is good enough
if it is surely not worse by more than a margin. Of these the cheapest is chosen: of least expected
cost of errors where costs are given, else the smallest. `grounds.py` has all numbers and sentences
that hold whatever is wished for; here, and by the same steps in the script of the report's page,
they are filtered and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import fmean
from typing import NamedTuple

from segsweep.results.candidates import LATENCY, Candidate, Contest
from segsweep.results.evidence import seeds_needed
from segsweep.results.grounds import NAMED, SMALL, Grounds, size, worded
from segsweep.results.wishes import UNITS, Limit, Wishes


@dataclass(frozen=True)
class Decision:
    """The choice, if there is one, in words; what each other candidate breaks, and might lose.

    `worse` is by how much each that qualifies could be worse than the best; None if nothing tells.
    """

    chosen: str | None
    broken: dict[str, list[str]]
    worse: dict[str, float | None]
    words: list[str]


class Pick(NamedTuple):
    """Of the settings that qualify the best, the good enough, the choice, and cheaper ones."""

    fit: list[Candidate]
    best: Candidate
    enough: list[Candidate]
    chosen: Candidate
    cheaper: list[Candidate]


def decide(contest: Contest, wishes: Wishes) -> Decision:
    """Choose among the candidates of a data set."""
    grounds, limits = Grounds(contest), wishes.limits()
    unstable = [words for c in grounds.tried if (words := grounds.unstable(c))]
    broken = {c.name: [limit.text() for limit in limits if not limit.met(c)] for c in grounds.tried}
    for c in grounds.tried:
        broken[c.name] += [worded("out")] if c not in grounds.stable else []
    fit = [c for c in grounds.tried if not broken[c.name]]
    if stop := grounds.stop(wishes.floor):
        return Decision(None, broken, {}, [stop, *unstable])
    if not fit:
        return Decision(None, broken, {}, [*_nothing(grounds.stable, limits), *unstable])
    best = max(fit, key=grounds.mean)
    worse = {c.name: grounds.loss(c, best) for c in fit}
    pick = _pick(grounds, wishes, fit, best)
    if pick is None:
        return Decision(None, broken, worse, [_doubted(grounds, wishes, best), *unstable])
    noise = grounds.evidence.noise
    words = [
        grounds.choice(pick.chosen),
        _why(grounds, wishes, pick),
        grounds.hidden() if noise and noise.sd > wishes.margin else "",
        _errors(wishes, pick.chosen),
        grounds.left(pick.chosen),
        *unstable,
        *_open(grounds, wishes, pick),
    ]
    return Decision(pick.chosen.name, broken, worse, list(filter(None, words)))


def _pick(grounds: Grounds, wishes: Wishes, fit: list[Candidate], best: Candidate) -> Pick | None:
    """Choose the cheapest that is good enough: by the cost of errors as printed, or by size.

    Nothing is chosen where only a doubtful setting is.
    """
    losses = {c.name: inf if (x := grounds.loss(c, best)) is None else x for c in fit}
    prices = {
        c.name: round(wishes.price(c), 2) if wishes.priced() else i for i, c in enumerate(fit)
    }
    near = [c for c in fit if c is best or losses[c.name] <= wishes.margin]
    enough = [c for c in near if not grounds.doubtful(c)]
    if not enough:
        return None
    chosen = min(enough, key=lambda c: prices[c.name])
    cheaper = [c for c in fit if prices[c.name] < prices[chosen.name]]
    return Pick(fit, best, enough, chosen, sorted(cheaper, key=lambda c: losses[c.name]))


def _doubted(grounds: Grounds, wishes: Wishes, best: Candidate) -> str:
    """Say that the best may be unstable, and that nothing can stand in for it."""
    terms = {"margin": f"{wishes.margin:.2f}", "metric": grounds.contest.metric}
    return worded("doubted", name=best.name, value=grounds.value(best), **terms)


def _why(grounds: Grounds, wishes: Wishes, pick: Pick) -> str:
    """Say why the choice is chosen."""
    best, terms = pick.best, {"margin": f"{wishes.margin:.2f}", "metric": grounds.contest.metric}
    if len(pick.fit) == 1:
        return worded("only")
    if not grounds.evidence.known:
        return worded("blind")
    if pick.chosen is best:
        held = worded("held", **terms) if pick.cheaper else ""
        return worded("best", n=len(pick.fit), held=held)
    priced = wishes.priced() and pick.chosen.outcomes
    terms |= {"merit": worded("priced" if priced else "smallest")}
    terms |= {"best": best.name, "there": grounds.value(best), "size": size(best)}
    loss = f"{grounds.loss(pick.chosen, best):.2f}"
    return worded("enough", n=len(pick.enough), loss=loss, **terms)


def _errors(wishes: Wishes, chosen: Candidate) -> str:
    """Say what the errors of the choice cost, and at which score."""
    if not wishes.priced():
        return ""
    if not chosen.outcomes:
        return worded("unpriced")
    score, missed, false = map(fmean, zip(*wishes.cheapest(chosen), strict=True))
    numbers = {"missed": f"{missed:.1f}", "false": f"{false:.1f}", "score": f"{score:.2f}"}
    return worded("cost", cost=f"{wishes.price(chosen):.2f}", **numbers)


def _open(grounds: Grounds, wishes: Wishes, pick: Pick) -> list[str]:
    """Say of the closest cheaper settings what they could lose, and how many seeds would tell.

    What surely loses more than the margin needs no word.
    """
    best, sentences = pick.best, []
    for c in pick.cheaper:
        loss, lost = grounds.loss(c, best), grounds.mean(best) - grounds.mean(c)
        if loss is None or 2 * lost - loss > wishes.margin:
            continue
        about = {"name": c.name, "size": size(c), "metric": grounds.contest.metric}
        about |= {"loss": f"{loss:.2f}", "best": best.name}
        if grounds.doubtful(c) and loss <= wishes.margin:
            sentences.append(worded("doubtful", value=grounds.value(c), **about))
        else:
            seeds = min(len(c.by_seed), len(best.by_seed))
            settle = _settle(grounds, wishes.margin - lost, seeds)
            sentences.append(worded("open", settle=settle, **about))
    return sentences[:NAMED]


def _settle(grounds: Grounds, distance: float, seeds: int) -> str:
    """Say how many more seeds would tell on which side of the margin a setting is."""
    if abs(distance) < SMALL:
        return ""
    needed = seeds_needed(grounds.reaches, distance)
    if needed is None:
        return worded("never")
    more = needed - seeds
    return worded("settle", n=more, s="s" * (more > 1)) if more > 0 else worded("others")


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

"""What can be said of a contest whatever is wished for: its numbers, and sentences about them.

All arithmetic of evidence about a choice is done here, once; `decision.py` and the script of the
report's page only filter and compare these numbers. Settings stand in the order of what they cost,
the cheapest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from segsweep.metrics.learnt import CURES, learnt
from segsweep.results.candidates import Candidate, Contest
from segsweep.results.evidence import Difference, Evidence
from segsweep.results.wishes import UNITS

SMALL = 0.005  # what no printed digit shows
NAMED = 3  # settings that more seeds could make the choice, of those the closest

WORDS = {
    "progress": "{done} of {planned} settings {are} done.",
    "ceiling": "Ceiling: {metric} {ceiling} is what the annotations themselves score at the "
    "model's input size, with as many objects as it finds and the metric counts.",
    "alone": "No choice yet: only {name} is done ({value}).",
    "unlearnt": "Nothing has been learnt, so nothing is chosen: the best, {name}, has {value}, "
    f"less than {{floor}}. {CURES}",
    "unmoved": "No setting is better than {name} ({value}), which trains nothing{noise}: nothing "
    "needs to be trained, or nothing was learnt (learning rate, epochs, weights).",
    "noise": ", by more than noise",
    "single": ", by {floor} or more, and one run each tells no more",
    "none_chosen": "—",
    "choice": "Choose {name}: {value}, {size} to store per task, {latency}.",
    "only": "Nothing else can be chosen.",
    "blind": "Noise over seeds is not known (no setting has two seeds that differ): this is the "
    "best number and no more. Two more seeds of each would begin to tell.",
    "best": "It has the best mean of the {n} settings that qualify{held}.",
    "held": ", and nothing cheaper is sure to be within {margin} {metric} of it",
    "enough": "Of {n} settings surely within {margin} {metric} of the best it {merit}: it could "
    "be up to {loss} worse than {best} ({there}, {size}).",
    "smallest": "is the smallest",
    "priced": "has the least expected cost",
    "hidden": "Noise over seeds (standard deviation {sd} {metric}) is larger than the margin and "
    "hides nearly everything: each of the {n} settings could be the best.",
    "cost": "Expected cost of errors: {cost} per 1,000 objects, from {missed} missed and {false} "
    "false alarms at a score of {score}.",
    "unpriced": "No setting that is good enough kept predictions, so the cost of errors is unknown "
    "and the smallest is chosen.",
    "left": "{name} leaves {gap} on the table against the full head ({value}){doubt}.",
    "worse": "{name} is {gap} worse than the full head ({value}){doubt}.",
    "better": "{name} is {gap} better than the full head ({value}){doubt}.",
    "between": "{gap} ({low} to {high})",
    "none": ": could be none",
    "unknown": "; how much of that is noise only more seeds can tell",
    "loose": ", which is unstable",
    "no_reference": "No full head of {model} has finished: what PEFT leaves on the table is not "
    "known.",
    "open": "{name} ({size}) could be up to {loss} {metric} worse than {best}{settle}.",
    "settle": "; {n} more seed{s} of both would settle it",
    "never": "; more than 30 seeds of both would be needed to settle it",
    "others": "; more seeds of the other settings would settle it",
    "unstable": "{name} is unstable: {value}, seed {seed} ({odd}) is far from the others; it is "
    "neither chosen nor compared with.",
    "out": "unstable",
    "doubtful": "{name} ({size}) could be up to {loss} {metric} worse than {best}, but varies more "
    "over seeds than the others do ({value}): more seeds of it would tell.",
    "doubted": "No choice yet: the best, {name} ({value}), varies more over seeds than the others "
    "do, and nothing else is sure to be within {margin} {metric} of it. More seeds of it would "
    "tell.",
    "yes": "yes",
    "doubt": "yes, but doubtful",
    "nothing": "Nothing qualifies.",
    "empty": "No run has finished on this data set yet.",
    "binding": "{limit} is what binds: without it {name} qualifies ({value}).",
    "conflict": "{limit} rules out {k} of {n}; the nearest is {name} ({value}).",
    "unmeasured": "{limit} cannot be judged, nothing measured it{cure}.",
    "bench": ": python -m segsweep bench",
    "not_measured": "latency not measured",
    "seen": "The best epoch (but for data.select=held) and the scores are chosen on the very "
    "images that are reported: expect slightly less on new ones.",
}


def worded(key: str, **values: object) -> str:
    """Return a sentence, or a part of one, with its values."""
    return WORDS[key].format(**values)


@dataclass(frozen=True)
class Gap:
    """How far a candidate is above its full head; no interval where nothing tells the noise."""

    reference: Candidate
    above: float
    interval: Difference | None

    def hidden(self) -> bool:
        """Say whether there may be no difference at all."""
        return self.interval is not None and not self.interval.differs


class Grounds:
    """The settings of a contest, the cheapest first, and what is known of their differences."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.tried = sorted(contest.tried(), key=Candidate.burden)
        self.evidence = Evidence({c.name: contest.gains(c) for c in self.tried})

    @cached_property
    def stable(self) -> list[Candidate]:
        """The candidates that may be chosen, or compared with."""
        return [c for c in self.tried if c.name not in self.evidence.unstable]

    @cached_property
    def reaches(self) -> list[float]:
        """How far a difference may be off with 2, 3, ... seeds of every setting."""
        return [round(reach, 4) for reach in self.evidence.seeds_reach()]

    def doubtful(self, c: Candidate) -> bool:
        """Say whether a stable candidate varies so much that it may not be chosen."""
        return c.name in self.evidence.doubtful

    def mean(self, c: Candidate) -> float:
        """Return the mean gain of a candidate that has values."""
        return self.evidence.means[c.name]

    def loss(self, c: Candidate, best: Candidate) -> float | None:
        """Return how much worse than the best it could be, as printed; None if nothing tells."""
        if not self.evidence.known or {c.name, best.name} & self.evidence.unstable.keys():
            return None
        return 0.0 if c is best else round(self.evidence.loss(c.name, best.name), 2)

    def gap(self, c: Candidate) -> Gap | None:
        """Return how far a candidate is above its full head, None where none has finished."""
        heads = [head for head in self.tried if head.reference]
        if not heads or not c.values:
            return None
        unstable = self.evidence.unstable
        head = max(heads, key=lambda head: (head.name not in unstable, self.mean(head)))
        intervals = self.evidence.against(head.name)
        return Gap(head, self.mean(c) - self.mean(head), intervals.get(c.name))

    def progress(self) -> str:
        """Say how many settings are done, unless all are."""
        done, missing = len(self.tried), self.contest.missing
        are = "is" if done == 1 else "are"
        return worded("progress", done=done, planned=done + missing, are=are) if missing else ""

    def ceiling(self) -> str:
        """Say what no setting can pass; nothing where that is everything."""
        about = {"metric": self.contest.metric, "ceiling": self.contest.ceiling}
        return worded("ceiling", **about) if self.contest.ceiling else ""

    def stop(self, floor: float) -> str:
        """Say why nothing can be chosen, whatever is wished for; nothing where something can."""
        if not self.stable:
            return ""
        best = max(self.stable, key=self.mean)
        named = {"name": best.name, "value": self.value(best)}
        if len(self.tried) == 1 and self.contest.missing:
            return worded("alone", **named)
        direction = "higher" if self.contest.higher else "lower"
        if not learnt(self.mean(best), self.contest.unit, direction, floor):
            return worded("unlearnt", floor=f"{floor:.2f}", **named)
        frozen = [c for c in self.stable if not c.trained]
        trained = [c for c in self.stable if c.trained]
        if not frozen or not trained:
            return ""
        base = max(frozen, key=self.mean)
        if any(self._beats(c, base, floor) for c in trained):
            return ""
        noise = worded("single", floor=f"{floor:.2f}") if self.contest.unit == "%" else ""
        noise = worded("noise") if self.evidence.known else noise
        return worded("unmoved", name=base.name, value=self.value(base), noise=noise)

    def _beats(self, c: Candidate, base: Candidate, floor: float) -> bool:
        """Say whether a candidate is above the base: by more than noise, or what may be noise."""
        gained = self.mean(c) - self.mean(base)
        if self.evidence.known:
            return gained > self.evidence.reach(base.name, c.name)
        return gained >= floor if self.contest.unit == "%" else gained > 0

    def hidden(self) -> str:
        """Say that each setting could be the best; nothing if some of them could not."""
        best, noise = self.evidence.among_best(), self.evidence.noise
        if noise is None or len(self.stable) < 2 or any(c.name not in best for c in self.stable):
            return ""
        number = len(self.stable)
        return worded("hidden", sd=f"{noise.sd:.2f}", metric=self.contest.metric, n=number)

    def unstable(self, c: Candidate) -> str:
        """Say that a candidate is unstable, and by which seed; nothing if it is not."""
        place = self.evidence.unstable.get(c.name)
        if place is None:
            return ""
        seed, odd = list(c.by_seed.items())[place]
        return worded("unstable", name=c.name, value=self.value(c), seed=seed, odd=f"{odd:.2f}")

    def choice(self, c: Candidate) -> str:
        """Say that a candidate is chosen, and what it gives and costs."""
        latency = worded("not_measured") if c.latency is None else f"{c.latency:.2f} ms an image"
        return worded("choice", name=c.name, value=self.value(c), size=size(c), latency=latency)

    def left(self, chosen: Candidate) -> str:
        """Say what PEFT loses against the full head: the choice, or the best other if that is."""
        compared = chosen
        if chosen.reference:
            others = [c for c in self.stable if not c.reference]
            if not others:
                return ""
            compared = max(others, key=self.mean)
        gap = self.gap(compared)
        if gap is None:
            return worded("no_reference", model=self.contest.model)
        sentence = "better" if gap.above > 0 else "worse"
        distance, doubt = f"{abs(gap.above):.2f} {self.contest.metric}", ""
        if gap.interval is not None:
            own = gap.interval if gap.above > 0 else gap.interval.turned()
            distance = worded("between", gap=distance, low=signed(own.low), high=signed(own.high))
            doubt = worded("none") if gap.hidden() else ""
            sentence = "left" if gap.interval.high < 0 else sentence
        elif gap.reference.name in self.evidence.unstable:
            doubt = worded("loose")
        else:
            doubt = worded("unknown")
        value = self.value(gap.reference)
        return worded(sentence, name=compared.name, gap=distance, value=value, doubt=doubt)

    def value(self, c: Candidate) -> str:
        """Return "AP 40.33 ± 10.02 (3)", nothing without a run."""
        values = c.values
        spread = f" ± {stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
        return f"{self.contest.metric} {fmean(values):.2f}{spread}" if values else ""


def brief(contest: Contest, floor: float) -> dict[str, Any]:
    """Return all that holds whatever is wished for, as a page takes it in.

    `loss` has for each candidate as the best (rows) how much worse each other could be (columns).
    """
    grounds = Grounds(contest)
    noise = grounds.evidence.noise
    return {
        "metric": contest.metric,
        "stop": grounds.stop(floor),
        "noise": noise and noise.sd,
        "hidden": grounds.hidden(),
        "reaches": grounds.reaches,
        "loss": [[grounds.loss(c, best) for c in grounds.tried] for best in grounds.tried],
        "candidates": [
            {
                "name": c.name,
                "mean": grounds.mean(c),
                "seeds": len(c.by_seed),
                "measured": c.measured(),
                "outcomes": c.outcomes,
                "value": grounds.value(c),
                "size": size(c),
                "choice": grounds.choice(c),
                "left": grounds.left(c),
                "unstable": grounds.unstable(c),
                "doubtful": grounds.doubtful(c),
            }
            for c in grounds.tried
        ],
    }


def terms() -> dict[str, Any]:
    """Return what all decisions share: sentences, units, and what is small or many."""
    return {"words": WORDS, "units": UNITS, "small": SMALL, "named": NAMED}


def size(c: Candidate) -> str:
    """Return "0.40 MB"."""
    return f"{c.size:.2f} MB"


def signed(value: float, plus: str = "") -> str:
    """Return a number with a minus sign, never minus nothing; a plus sign on request."""
    shown = value if abs(value) >= SMALL else 0.0
    return f"{plus if shown > 0 else ''}{shown:.2f}".replace("-", "−")

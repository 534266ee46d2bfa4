"""What may be said of settings that were run a few times: one column of numbers, and its noise.

A column holds the runs of several settings on one data set by one metric; runs of a setting differ
in the seed only. All values are gains: more is better, signs are turned where they are read.

    s^2 = sum (n_i - 1) v_i / nu,   nu = sum (n_i - 1)        over the settings that can vary

Tables, figures, report and decisions ask here, so the same numbers lead to the same words. What may
be said over several data sets stands in over_sets.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt
from statistics import fmean, median
from typing import Generic, NamedTuple, TypeVar

from segsweep.results.quantiles import LEVEL, dunnett, fisher, student

K = TypeVar("K", bound=Hashable)

RARE = 0.001  # how seldom a healthy setting is called unstable
ODD = 0.05  # how seldom one is called doubtful, which costs it no more than being chosen
SEEDS = 30  # of each setting that are still spoken of; who needs more will not run them


class Difference(NamedTuple):
    """A difference, and between what the true one lies."""

    middle: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Say whether no difference at all is ruled out."""
        return self.low > 0 or self.high < 0

    def turned(self) -> Difference:
        """Return the difference seen from the other side."""
        return Difference(-self.middle, -self.high, -self.low)


@dataclass(frozen=True)
class SeedNoise:
    """The standard deviation that all stable settings share, and what it is known from."""

    sd: float
    freedom: float


class Evidence(Generic[K]):
    """The settings of one column and what their runs tell about differences between them.

    Args:
        runs: the gain of every seed, by setting; repeats of a seed are one value.
        noise: standard deviation over seeds that holds where no setting has two.
    """

    def __init__(self, runs: Mapping[K, Sequence[float]], noise: float | None = None) -> None:
        self.runs = {key: tuple(values) for key, values in runs.items() if values}
        self.means = {key: fmean(values) for key, values in self.runs.items()}
        self._given = noise

    @cached_property
    def constant(self) -> set[K]:
        """Settings that do not vary at all: a frozen base whose classes are known."""
        several = ((key, values) for key, values in self.runs.items() if len(values) > 1)
        return {key for key, values in several if len(set(values)) == 1}

    @cached_property
    def unstable(self) -> dict[K, int]:
        """Settings that vary far more than the others, with the place of the oddest seed.

        v_i over the pooled variance of the others is above the 0.999 quantile of F(n_i - 1, nu -
        n_i + 1). The worst is taken out before the others are looked at again.
        """
        varying = self._varying(self.constant)
        found: dict[K, int] = {}
        while len(varying) > 1:
            excess = {key: _excess(key, varying, RARE) for key in varying}
            worst = max(excess, key=excess.__getitem__)
            if excess[worst] <= 1:
                break
            del varying[worst]
            values = self.runs[worst]
            middle = median(values)
            found[worst] = max(range(len(values)), key=lambda i: abs(values[i] - middle))
        return found

    @cached_property
    def doubtful(self) -> set[K]:
        """Stable settings that vary more than the others by the 0.95 quantile: not to be chosen.

        With two seeds most unstable settings look no worse than this.
        """
        varying = self._varying(self.constant | self.unstable.keys())
        several = len(varying) > 1
        return {key for key in varying if several and _excess(key, varying, ODD) > 1}

    def _varying(self, apart: set[K]) -> dict[K, tuple[int, float]]:
        """Return degrees of freedom and variance of settings with several runs, but for some."""
        return {
            key: (len(values) - 1, variance(values))
            for key, values in self.runs.items()
            if len(values) > 1 and key not in apart
        }

    @cached_property
    def noise(self) -> SeedNoise | None:
        """The noise over seeds of the stable settings; None where nothing tells it."""
        apart = self.constant | self.unstable.keys()
        groups = [values for key, values in self.runs.items() if key not in apart]
        if sd := pooled(groups):
            return SeedNoise(sd, sum(len(values) - 1 for values in groups))
        return None if self._given is None else SeedNoise(self._given, inf)

    @property
    def known(self) -> bool:
        """Say whether anything is known of noise: without it no difference can be judged."""
        return self.noise is not None

    def stable(self) -> list[K]:
        """Return the settings that may be chosen, or compared with, in their order."""
        return [key for key in self.runs if key not in self.unstable]

    def among_best(self) -> set[K]:
        """Return the settings that may be the best: Hsu's comparisons with the best.

        The true best is missing in at most 5 % of all columns. Empty where noise is not known.
        """
        if not self.known:
            return set()
        means = self.means
        return {
            key
            for key in means
            if all(
                means[key] - means[other] + self.reach(key, other) >= 0
                for other in means
                if other != key
            )
        }

    def against(self, reference: K) -> dict[K, Difference]:
        """Return how far each other setting is from the reference: two-sided Dunnett intervals.

        All of them hold the true difference in 95 % of all columns. Empty where noise is not known
        or the reference is unstable.
        """
        if not self.known or reference in self.unstable or reference not in self.means:
            return {}
        intervals = {}
        for key in self.means:
            if key != reference:
                middle = self.means[key] - self.means[reference]
                reach = self.reach(reference, key, two_sided=True)
                intervals[key] = Difference(middle, middle - reach, middle + reach)
        return intervals

    def loss(self, key: K, best: K) -> float:
        """Return how much worse than the best a setting could be; infinity if that is not known."""
        if not self.known:
            return inf
        return self.means[best] - self.means[key] + self.reach(best, key)

    def reach(self, control: K, other: K, two_sided: bool = False) -> float:
        """Return how far a difference from a control may be off, among those of all others."""
        assert self.noise is not None
        if {control, other} & self.unstable.keys():
            return self._welch(control, other, two_sided)
        weights = self._weights
        error = self.noise.sd * sqrt(weights[control] + weights[other])
        others = [w for k, w in weights.items() if k != control and w + weights[control] > 0]
        if error == 0:
            return 0.0
        return error * dunnett(weights[control], others, self.noise.freedom, two_sided)

    def seeds_reach(self) -> list[float]:
        """Return how far a difference may be off with 2, 3, ... 30 seeds of every setting.

        Empty where noise is not known.
        """
        if not self.known or len(self.means) < 2:
            return []
        return [self._reach_with(n) for n in range(2, SEEDS + 1)]

    def _reach_with(self, n: int) -> float:
        assert self.noise is not None
        varying = max(2, len(self.stable()) - len(self.constant))
        freedom = inf if self.noise.freedom == inf else varying * (n - 1)
        others = [1 / n] * (len(self.means) - 1)
        return dunnett(1 / n, others, freedom, False) * self.noise.sd * sqrt(2 / n)

    @cached_property
    def _weights(self) -> dict[K, float]:
        """Variances of the means of stable settings, in units of s^2."""
        return {
            key: 0.0 if key in self.constant else 1 / len(self.runs[key]) for key in self.stable()
        }

    def _welch(self, control: K, other: K, two_sided: bool) -> float:
        """Return the reach of a difference in which an unstable setting has its own spread."""
        parts = [self._variance(key) for key in (control, other)]
        total = sum(part for part, _ in parts)
        freedom = total**2 / sum(part**2 / nu for part, nu in parts if part)
        tail = LEVEL / (len(self.means) - 1) / (2 if two_sided else 1)
        return student(freedom, tail) * sqrt(total)

    def _variance(self, key: K) -> tuple[float, float]:
        """Return the variance of a setting's mean, and its degrees of freedom."""
        if key in self.unstable:
            values = self.runs[key]
            return variance(values) / len(values), len(values) - 1
        assert self.noise is not None
        return self.noise.sd**2 * self._weights[key], self.noise.freedom


def seeds_needed(reaches: Sequence[float], distance: float) -> int | None:
    """Return how many seeds of both tell a difference of that size; None if over 30, or unknown.

    `reaches` are those of `Evidence.seeds_reach`.
    """
    return next((n for n, reach in enumerate(reaches, start=2) if reach <= abs(distance)), None)


def variance(values: Sequence[float]) -> float:
    """Return the sample variance of at least two values; `statistics` takes 50 times as long."""
    centre = fmean(values)
    return sum((value - centre) ** 2 for value in values) / (len(values) - 1)


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation of at least two values."""
    return sqrt(variance(values))


def pooled(groups: Iterable[Sequence[float]]) -> float | None:
    """Return the pooled standard deviation of groups of at least two values, None without any."""
    several = [(len(group) - 1, variance(group)) for group in groups if len(group) > 1]
    return sqrt(_pooled(several)) if several else None


def _pooled(parts: Sequence[tuple[int, float]]) -> float:
    """Return the mean of variances by their degrees of freedom."""
    return sum(freedom * part for freedom, part in parts) / sum(freedom for freedom, _ in parts)


def _excess(key: K, varying: Mapping[K, tuple[int, float]], tail: float) -> float:
    """Return the variance of a setting over the most that a healthy one has beside the others.

    `varying` holds degrees of freedom and variance; healthy ones have more in a share of `tail`.
    """
    others = [part for other, part in varying.items() if other != key]
    freedom, own = varying[key]
    return own / (_pooled(others) * fisher(freedom, sum(nu for nu, _ in others), tail))


def alike_as_printed(difference: float, a: float | None, b: float | None) -> bool:
    """Say whether means differ by at most twice their printed spreads, of unknown numbers of runs.

    A guess about published numbers, no test: no error rate holds for it.
    """
    return a is not None and b is not None and abs(difference) <= 2 * sqrt(a * a + b * b)

"""What may be said over several data sets: two paired tests with different questions, and ranks.

*On these sets* the seeds of a set are pairs of their own, and signs flip per pair: is the method
different from the reference on the sets that were tried? *Beyond these sets* signs flip per whole
set, because the seeds of one set share how the method fits that set: is it different in general?
With effects that vary over sets, the first test must not be read as an answer to the second.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from segsweep.results.quantiles import LEVEL

if TYPE_CHECKING:
    import numpy as np

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=Hashable)

EXACT, DRAWN = 16, 9_999  # units up to which all 2^n signs are tried; patterns drawn beyond
SETS = 3  # below which ranks over data sets say nothing
RESAMPLES = 2_000


@dataclass(frozen=True)
class Test:
    """A paired test against the reference: p, and how many units could flip their sign."""

    p: float
    units: int

    def text(self) -> str:
        """Return "0.031 (6)"."""
        return f"{self.p:.3f} ({self.units})"


def sign_flips(differences: Sequence[float]) -> Test:
    """Test whether paired differences are symmetric about zero (Fisher 1935, two-sided).

    p is the share of sign patterns whose sum is at least as far from zero as the observed one: of
    all 2^n up to 16 differences, beyond that of 9,999 drawn with a fixed seed and the observed one.
    """
    observed = abs(sum(differences)) * (1 - 1e-12)
    if len(differences) <= EXACT:
        sums = [0.0]
        for value in differences:
            sums = [total + signed for total in sums for signed in (value, -value)]
        extreme, patterns = sum(abs(total) >= observed for total in sums), len(sums)
    else:
        import numpy as np

        # not `@`: threads for so little work only get into the way of those who draw figures
        totals = abs(np.einsum("ij,j->i", _drawn(len(differences)), np.asarray(differences)))
        extreme, patterns = int((totals >= observed).sum()) + 1, DRAWN + 1
    return Test(extreme / patterns, len(differences))


def on_these(by_set: Mapping[K, Sequence[float]]) -> Test:
    """Test the differences of pairs on the sets that were tried; signs flip per pair."""
    return sign_flips([value for values in by_set.values() for value in values])


def beyond_these(by_set: Mapping[K, Sequence[float]]) -> Test:
    """Test the mean differences of sets as a sample of more sets; signs flip per set."""
    return sign_flips([fmean(values) for values in by_set.values()])


def least(units: int, tests: int) -> float:
    """Return the smallest p that a test of so many units can have after Holm for all tests."""
    return tests * 2 / 2**units


def needed(tests: int) -> int:
    """Return how many units it takes for one of so many tests to be significant."""
    return next(units for units in count(1) if least(units, tests) <= LEVEL)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given."""
    adjusted, worst = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - place) * values[i]))
        adjusted[i] = worst
    return adjusted


@dataclass(frozen=True)
class Rank:
    """The mean rank of a setting over data sets, 1 is the best, and between what it may lie.

    `first` is the share of resamples in which it is the first; settings that share a letter of
    `group` have intervals that overlap.
    """

    mean: float
    low: float
    high: float
    first: float
    group: str

    def text(self) -> str:
        """Return "1.8 (1.0 to 2.5) ab"."""
        return f"{self.mean:.1f} ({self.low:.1f} to {self.high:.1f}) {self.group}"


def ranks(gains: Mapping[K, Mapping[P, Sequence[float]]]) -> dict[K, Rank]:
    """Rank settings on every data set; intervals by resampling sets, and seeds within (95 %).

    `gains` holds the values of the seeds by setting and data set. Settings that lack a set are left
    out; nothing is returned for fewer than two settings or three sets.
    """
    sets = list(dict.fromkeys(place for by_set in gains.values() for place in by_set))
    settings = [key for key, by_set in gains.items() if all(by_set.get(place) for place in sets)]
    if len(settings) < 2 or len(sets) < SETS:
        return {}
    import numpy as np

    generator = np.random.default_rng(0)
    means = np.array([[fmean(gains[key][place]) for key in settings] for place in sets])
    drawn = np.stack([[_resampled(gains[k][s], generator) for k in settings] for s in sets])
    weights = generator.multinomial(len(sets), [1 / len(sets)] * len(sets), RESAMPLES) / len(sets)
    resampled = np.einsum("bs,skb->bk", weights, _ranked(drawn.swapaxes(1, 2)).swapaxes(1, 2))
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    best = resampled <= resampled.min(1, keepdims=True) + 1e-9
    first = (best / best.sum(1, keepdims=True)).mean(0)
    groups = letters(list(zip(low.tolist(), high.tolist(), strict=True)))
    centre = _ranked(means).mean(0)
    return {
        key: Rank(float(centre[k]), float(low[k]), float(high[k]), float(first[k]), groups[k])
        for k, key in enumerate(settings)
    }


def _resampled(values: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Return means of seeds drawn with replacement. (RESAMPLES,)"""
    import numpy as np

    picked = generator.integers(0, len(values), (RESAMPLES, len(values)))
    return np.asarray(values)[picked].mean(1)


def _ranked(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, 1 for the highest; equal values share their mean rank."""
    above = (values[..., None, :] > values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return above + (equal + 1) / 2


def letters(intervals: Sequence[tuple[float, float]]) -> list[str]:
    """Return letters so that two intervals share one exactly if they overlap.

    Every letter is a largest set of intervals that all overlap: those that hold one's upper end and
    are in no other such set.
    """
    sets: list[frozenset[int]] = []
    for end in sorted({high for _, high in intervals}):
        holding = frozenset(i for i, (low, high) in enumerate(intervals) if low <= end <= high)
        if not any(holding <= other for other in sets):
            sets = [other for other in sets if not other <= holding] + [holding]
    names = [chr(ord("a") + n % 26) for n in range(len(sets))]
    return [
        "".join(a for a, s in zip(names, sets, strict=True) if i in s)
        for i in range(len(intervals))
    ]


@lru_cache(maxsize=1)  # most rows of a table have equally many pairs
def _drawn(units: int) -> np.ndarray:
    """Return patterns of signs, the same for the same number. (DRAWN, units)"""
    import numpy as np

    return 2 * np.random.default_rng(0).integers(0, 2, (DRAWN, units), dtype=np.int8) - 1

"""What can be said about differences: spread over seeds, ties, and an exact paired test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ENOUGH = 3  # seeds from which a cell's own spread is used rather than that of its column
FACTOR = 2.0  # standard errors below which a difference is a tie
LEVEL = 0.05
LEAST = 6  # pairs below which no two-sided p can be under LEVEL: 2 / 2^5 = 0.0625
EXACT, DRAWN = 16, 9_999  # pairs up to which all 2^n signs are tried; patterns drawn beyond


@dataclass(frozen=True)
class Test:
    """A paired test of a row against the reference: p, and the number of pairs behind it."""

    p: float
    pairs: int

    def text(self) -> str:
        """Return "0.031 (6)", or why there is nothing to say."""
        return f"{self.p:.3f} ({self.pairs})" if self.pairs >= LEAST else f"n.s. ({self.pairs})"


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation of at least two values."""
    centre = sum(values) / len(values)
    return sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def pooled(groups: Iterable[Sequence[float]]) -> float | None:
    """Return the pooled standard deviation of groups of at least two values, None without any.

    sqrt(sum (n_i - 1) s_i^2 / sum (n_i - 1)).
    """
    several = [group for group in groups if len(group) > 1]
    if not several:
        return None
    freedom = sum(len(group) - 1 for group in several)
    return sqrt(sum((len(group) - 1) * deviation(group) ** 2 for group in several) / freedom)


def within_noise(difference: float, a: tuple[float, int], b: tuple[float, int]) -> bool:
    """Say whether two means differ by at most two standard errors; each is (sd, seeds)."""
    error = sqrt(sum(sd**2 / max(n, 1) for sd, n in (a, b)))
    return abs(difference) <= FACTOR * error


def sign_flips(differences: Sequence[float]) -> Test:
    """Test whether paired differences are symmetric about zero (Fisher 1935, two-sided).

    p is the share of sign patterns whose sum is at least as far from zero as the observed one: of
    all 2^n up to 16 pairs, beyond that of 9,999 drawn with a fixed seed and the observed one.
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


@lru_cache(maxsize=1)  # most rows of a table have equally many pairs
def _drawn(pairs: int) -> np.ndarray:
    """Return patterns of signs, the same for the same number of pairs. (DRAWN, pairs)"""
    import numpy as np

    return 2 * np.random.default_rng(0).integers(0, 2, (DRAWN, pairs), dtype=np.int8) - 1


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given."""
    adjusted, worst = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = worst
    return adjusted

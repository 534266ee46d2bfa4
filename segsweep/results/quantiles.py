"""Quantiles for many comparisons with one control: Dunnett (1955), for any numbers of runs.

Differences D_j = m_0 - m_j of k rows from a control have variances s^2 (a_0 + a_j), a = 1/n. They
share m_0, so D_j = lambda_j z + sqrt(1 - lambda_j^2) e_j with lambda_j^2 = a_0 / (a_0 + a_j) and
independent normal z, e_j; s is independent of both. What all of them hold is therefore an integral
over z and s only:

    P(all D_j <= d s) = E_s E_z prod_j Phi((d s + lambda_j z) / sqrt(1 - lambda_j^2))
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

LEVEL = 0.05  # of wrong statements in a family of comparisons
WIDE, STEPS, NODES = 6.0, 161, 48  # of the grid over z and s
HIGH = 1e4  # above every quantile of two rows or more with one degree of freedom


def dunnett(control: float, others: Sequence[float], freedom: float, two_sided: bool) -> float:
    """Return d: all differences from the control are within d standard errors, with 95 %.

    Args:
        control: 1 / n of the control; 0 for a constant.
        others: 1 / n of each row that is compared with it; at least one.
        freedom: degrees of freedom of s, infinity where s is known.
        two_sided: both sides at once, else upper bounds only.
    """
    shares = sorted(control / (control + other) for other in others)
    return _dunnett(tuple(shares), freedom, two_sided)


@lru_cache(maxsize=4096)
def _dunnett(shares: tuple[float, ...], freedom: float, two_sided: bool) -> float:
    """Find d by bisection; `shares` are the lambda_j^2."""
    counts = {share: shares.count(share) for share in shares}
    low, high = 0.0, HIGH
    while high - low > 1e-4 * high:
        middle = sqrt((low or 0.1) * high) if high > 10 else (low + high) / 2
        enough = _held(middle, counts, freedom, two_sided) >= 1 - LEVEL
        low, high = (low, middle) if enough else (middle, high)
    return high


def _held(d: float, counts: dict[float, int], freedom: float, two_sided: bool) -> float:
    """Return the probability that all differences are within d standard errors."""
    from scipy.special import ndtr

    z, s, weights = _grid(freedom)
    product = weights
    for share, count in counts.items():
        shift, width = sqrt(share) * z, sqrt(max(1 - share, 1e-12))
        inside = ndtr((d * s + shift) / width)
        if two_sided:
            inside = inside - ndtr((shift - d * s) / width)
        product = product * inside**count
    return float(product.sum())


@lru_cache(maxsize=256)
def _grid(freedom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return z (STEPS, 1), s (1, NODES) and the weight of each pair; s by its own quantiles."""
    import numpy as np
    from scipy.special import chdtri

    z = np.linspace(-WIDE, WIDE, STEPS)[:, None]
    density = np.exp(-z * z / 2)
    if freedom == inf:
        s, share = np.ones((1, 1)), np.ones((1, 1))
    else:
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        s = np.sqrt(chdtri(freedom, (1 - nodes) / 2) / freedom)[None]
        share = weights[None] / 2
    return z, s, density / density.sum() * share


def student(freedom: float, tail: float) -> float:
    """Return the quantile of Student's t above which `tail` of it lies."""
    from scipy.special import stdtrit

    return float(stdtrit(min(freedom, 1e9), 1 - tail))


@lru_cache(maxsize=4096)
def fisher(above: int, below: int, tail: float) -> float:
    """Return the quantile of F(above, below) above which `tail` of it lies."""
    from scipy.special import fdtri

    return float(fdtri(above, below, 1 - tail))

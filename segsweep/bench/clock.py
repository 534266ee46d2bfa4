"""Times of several calls that can be compared although the machine has other work to do.

Every round takes each call once, in an order drawn anew: neither drifts nor what ran just before
favours any. A ratio is that of two calls of the same round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import median, quantiles

import torch

from segsweep.base.terminal import watched

Call = Callable[[], object]
OUTSIDE = 0.05  # probability that an interval misses the median


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call, round by round: wall time, and CPU time of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    """A median with an interval that holds the true one 95 times in 100.

    No distribution is assumed: the ends are two of the values, placed by the binomial distribution
    (Conover 1999, section 3.2). Fewer than six values give no interval.
    """

    median: float
    low: float | None
    high: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Estimate:
        """Estimate the median that values come from."""
        ordered, n = sorted(values), len(values)
        misses, ends = 0.0, 0
        while (misses := misses + 2 * comb(n, ends) / 2**n) <= OUTSIDE:
            ends += 1
        if ends == 0:
            return Estimate(median(ordered), None, None)
        return Estimate(median(ordered), ordered[ends - 1], ordered[n - ends])


def rounds(
    calls: Sequence[Call], count: int, seconds: float, device: torch.device, label: str
) -> list[Times]:
    """Time calls in turns, `count` rounds or as many as begin within `seconds`, but two at least.

    Progress is shown under the name `what`.
    """
    times = [Times() for _ in calls]
    turns = list(zip(calls, times, strict=True))
    end = time.monotonic() + seconds
    for number in watched(range(count), count, label):
        if number >= 2 and time.monotonic() > end:
            break
        for call, samples in random.Random(number).sample(turns, len(turns)):
            wall, cpu = timed(call, device)
            samples.wall.append(wall)
            samples.cpu.append(cpu)
    return times


def timed(call: Call, device: torch.device) -> tuple[float, float]:
    """Return milliseconds of wall time, on a GPU between two of its events, and of CPU time."""
    cpu = time.process_time()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        wall = begin.elapsed_time(end)
    else:
        start = time.perf_counter()
        call()
        wall = 1e3 * (time.perf_counter() - start)
    return wall, 1e3 * (time.process_time() - cpu)


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range of two or more values."""
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return upper - lower

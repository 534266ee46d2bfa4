"""Shares of counted items: only so many rounded percentages of n items exist (GRIM).

N. J. L. Brown and J. A. J. Heathers, The GRIM Test, Social Psychological and Personality Science 8,
2017. Of 12 items 91.67 % can be right, 91.50 % cannot. It holds for shares of counts, such as an
accuracy over images, never for means such as AP or mIoU, nor for means over several runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.numbers import decimals, written

SHARES = re.compile(
    r"(top[-_ @]?\d+([-_ ]acc\w*)?|acc(uracy)?|recall|sensitivity|specificity|"
    r"(err(or)?|hit|success)([-_ ]rate)?|detected|missed)",
    re.IGNORECASE,
)
SHOWN = 6  # numbers of items in a line
MOST = 10_000  # items that are tried


def counted(cells: Sequence[PrintedCell]) -> dict[PrintedCell, str]:
    """Return the scores of a table, each with why it is no share of counted items, or nothing."""
    shares = [c for c in cells if (c.is_percent or c.unit == "1") and c.quantity == c.metric]
    scores = [c for c in shares if not c.metric.startswith("delta_")]
    of_pixels = {c.table for c in cells if "IoU" in c.metric}
    reasons = {}
    for cell in scores:
        reason = ""
        if not SHARES.fullmatch(cell.metric):
            reason = "no share of counted items"
        elif cell.table in of_pixels and cell.metric.lower().startswith("acc"):
            reason = "beside IoU it counts pixels"
        elif cell.std:
            reason = "a mean over runs"
        reasons[cell] = reason
    return reasons


def possible(cell: PrintedCell, items: int, cut: bool = False) -> range:
    """Return how many of the items can be meant by a printed share."""
    scale = 100 if cell.is_percent else 1
    interval = cell.interval(cut)
    low = math.ceil(interval.low * items / scale)
    high = math.floor(interval.high * items / scale)
    return range(max(low, 0), min(high, items) + 1)


def grim(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A share of n counted items is k/n for a whole k (GRIM); means such as AP are not tested."""
    for cell, reason in counted(cells).items():
        if reason or not cell.items:
            continue
        items = int(cell.items)
        if possible(cell, items):
            continue
        scale = 100 if cell.is_percent else 1
        below = min(math.floor(cell.value * items / scale), items)
        near = [k for k in (below, below + 1) if 0 <= k <= items]
        texts = [written(Fraction(scale * k, items), cell.text) for k in near]
        cut = bool(possible(cell, items, cut=True))
        yield Contradiction(
            certainty=Certainty.unless(cut),
            cells=[cell],
            printed=f"{cell.metric} {cell.text} of {items} items",
            follows=", ".join(f"{k} of {items} is {t}" for k, t in zip(near, texts, strict=True)),
            corrections=[f"{cell.text} → {t}" for t in texts],
            explanation=f"No whole number of {items} items is this share (GRIM).{CUT * cut}",
        )


def told(cells: Sequence[PrintedCell]) -> list[str]:
    """Return what GRIM was applied to, what not and why, and which numbers of items fit."""
    reasons = counted(cells)
    applied = sorted({c.metric for c, why in reasons.items() if c.items and not why})
    lines = [f"GRIM, shares of n items: applied to {', '.join(applied) or 'nothing'}"]
    for why, group in by((c for c in reasons if reasons[c]), lambda c: reasons[c]).items():
        names = ", ".join(sorted({c.metric for c in group}))
        lines.append(f"GRIM: not applied to {names}: {why}")
    free = [c for c, why in reasons.items() if not why and not c.items]
    for column in by(free, lambda c: (c.dataset, c.metric)).values():
        limit = min(10 ** (2 + max(decimals(c.text) for c in column)), MOST)
        fits = [n for n in range(1, limit) if all(possible(c, n) for c in column)]
        name = " ".join(filter(None, (column[0].dataset, column[0].metric)))
        shown = ", ".join(map(str, fits[:SHOWN])) or "none"
        more = f" and {len(fits) - SHOWN} more" if len(fits) > SHOWN else ""
        lines.append(f"GRIM: {name} can be shares of n items, n below {limit}: {shown}{more}")
    return lines

"""What is not impossible but stands out: rows off the line of the others, copies, marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from segsweep.audit.bounds import AP
from segsweep.audit.cells import PrintedCell, by, smallest_head
from segsweep.audit.counts import varying
from segsweep.audit.findings import Certainty, Contradiction
from segsweep.audit.numbers import repairs, short

if TYPE_CHECKING:
    import numpy as np

TIED = (("IoU", "Dice"), ("Jaccard", "Dice"), ("mIoU", "mAcc"), ("AP", "AP50", "AP75"))
ROWS = 8  # fewer do not show what is usual
FAR = 9.0  # times the usual distance from the line
POINTS = 1.0  # percent points; nearer to the line is never told
DEPTHS = ("I", "repeats", "depth", "layers")
NOISE = Fraction(98, 100)  # of a measured time


def relations(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Metrics that measure nearly the same follow one another over the rows of a table."""
    tables = by(cells, lambda c: (c.source, c.table, c.dataset, c.task, _kind(c)))
    for table in tables.values():
        rows = [{_name(c): c for c in row} for row in by(table, lambda c: c.row).values()]
        for names in TIED:
            complete = [row for row in rows if all(name in row for name in names)]
            if len(complete) >= ROWS:
                yield from _off_line([[row[name] for name in names] for row in complete])


def _kind(cell: PrintedCell) -> str:
    matched = AP.fullmatch(cell.metric)
    return matched[1] if matched else ""


def _name(cell: PrintedCell) -> str:
    matched = AP.fullmatch(cell.metric)
    return f"AP{matched[2] or ''}" if matched else cell.metric


def _off_line(rows: list[list[PrintedCell]]) -> Iterator[Contradiction]:
    import numpy as np

    values = np.array([[float(c.value) for c in row] for row in rows])
    for index, row in enumerate(rows):
        outlying = [
            (column, *distance)
            for column in range(len(row))
            if (distance := _distance(values, index, column))[2]
        ]
        if not outlying:
            continue
        expectations, fixes = [], []
        for column, expected, usual, _ in outlying:
            cell = row[column]
            expectations.append(f"{cell.metric} {cell.text}, expected {expected:.1f} ± {usual:.1f}")
            candidates = repairs(
                cell.text,
                lambda t, e=expected, u=usual: abs(float(t) - e) <= max(2 * u, 0.5),
                near=Fraction(str(round(expected, 3))),
            )
            fixes += [f"{cell.metric} {cell.text} → {text}" for text in candidates[:1]]
        yield Contradiction(
            certainty=Certainty.UNCLEAR,
            cells=row,
            printed=", ".join(f"{c.metric} {c.text}" for c in row),
            follows="; ".join(expectations),
            corrections=fixes,
            explanation=f"One of these is far off the line of the other {len(rows) - 1} rows: a "
            "slip, or another way of averaging.",
        )


def _distance(values: np.ndarray, index: int, column: int) -> tuple[float, float, bool]:
    """Return what the other rows let expect, their usual distance, and whether this is far.

    Least absolute deviations (by iterated weights), so that one bad row does not hide another. The
    relation is no straight line everywhere, so nothing is told of what lies outside the other rows.
    """
    import numpy as np

    others = np.arange(len(values)) != index
    inputs = np.c_[np.delete(values, column, axis=1), np.ones(len(values))]
    weights = np.ones(others.sum())
    line, misses = np.zeros(inputs.shape[1]), weights
    for _ in range(30):
        root = np.sqrt(weights)
        line = np.linalg.lstsq(inputs[others] * root[:, None], values[others, column] * root)[0]
        misses = np.abs(values[others, column] - inputs[others] @ line)
        weights = 1 / np.maximum(misses, 0.05)
    usual = max(1.4826 * float(np.median(misses)), 0.05)
    expected = float(inputs[index] @ line)
    miss = abs(values[index, column] - expected)
    known = inputs[others].min(0) <= inputs[index], inputs[index] <= inputs[others].max(0)
    return expected, usual, bool(miss > max(FAR * usual, POINTS) and np.all(known))


def supersets(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Training the head and more is not worse than training the head alone."""
    scores = [c for c in cells if c.is_percent and c.quantity == c.metric and "_" not in c.dataset]
    worse: dict[tuple[str, ...], list[tuple[PrintedCell, PrintedCell]]] = {}
    for group in by(scores, lambda c: (*c.row[:4], c.dataset, c.task)).values():
        rows = list(by(group, lambda c: c.setting).values())
        smallest = smallest_head(group)
        heads = {c.metric: c for c in group if smallest and c.method == smallest.method}
        for first in (row[0] for row in rows):  # the headline metric; the others follow it
            head = heads.get(first.metric)
            if head is None or first.role.trains != "more":
                continue
            gain = first.value - head.value
            if (-gain if not first.lower_is_better else gain) > 1:
                place = first.source, first.table, first.backbone, first.method
                worse.setdefault(place, []).append((first, head))
    for pairs in worse.values():
        yield Contradiction(
            certainty=Certainty.UNCLEAR,
            cells=[c for pair in pairs for c in pair],
            printed=", ".join(f"{c.metric} {c.text} < {h.text}" for c, h in pairs),
            follows="at least the score of the frozen backbone",
            explanation=f"{pairs[0][0].method} trains all that {pairs[0][1].method} trains and "
            "more, but is more than a point worse: badly tuned, or a slip.",
        )


def times(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """More layers one after another do not take less time."""
    timed = [c for c in cells if c.metric.endswith(("time", "latency")) and c.unit != "h"]
    layers = [c for c in timed if any(key in DEPTHS for key, _ in c.params)]
    for family in by(layers, lambda c: (*c.row[:5], c.dataset, c.metric)).values():
        for points in varying(family):
            for (x, less), (y, more) in pairwise(sorted(points.items(), key=lambda p: p[0])):
                if more.interval().high < less.interval().low * NOISE:
                    yield Contradiction(
                        certainty=Certainty.LIKELY,
                        cells=[less, more],
                        printed=f"{less.text} at {short(x)}, {more.text} at {short(y)}",
                        follows="a time that grows",
                        explanation="Each repetition adds layers that wait for one another.",
                    )

"""Slips of whoever set a table: copied rows, swapped columns, shares of 1 in percent, marks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from statistics import median

from segsweep.audit.bounds import exchange
from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.findings import Certainty, Contradiction
from segsweep.audit.numbers import decimals, rescaled

Key = Callable[[PrintedCell], tuple[Hashable, ...]]
LINES: tuple[tuple[str, Key, Key], ...] = (
    (
        "rows",
        lambda c: (c.method, c.params),
        lambda c: (c.model, c.backbone, c.dataset, c.task, c.metric),
    ),
    ("rows", lambda c: c.setting, lambda c: (c.dataset, c.task, c.metric)),
    ("rows", lambda c: (*c.setting, c.dataset, c.task), lambda c: (c.metric,)),
    (
        "columns",
        lambda c: (c.model, c.backbone, c.dataset, c.task, c.metric),
        lambda c: (c.method, c.params, c.metric),
    ),
)
"""What may have been copied as a whole, widest first: a line, and the place of a number in it."""
EQUAL = 3  # numbers; fewer are equal by chance, and so few may be
STEADY = 5  # other rows; fewer do not show what is usual
MANY = 8  # of them one may be as odd as it likes
MARKS = {"bold": 1, "underlined": None}  # the rank it stands for, if all know it
FRACTIONS = ("fraction", "1")


def copies(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """No two rows or columns of a document are equal in all numbers, three or more."""
    results = [c for c in cells if c.quantity == c.metric]
    for document in by(results, lambda c: c.source).values():
        told: set[PrintedCell] = set()
        yield from _twice(document)
        fractions = [c for c in document if decimals(c.text)]
        for kind, line_of, place_of in LINES:
            lines: dict[tuple, dict[tuple, PrintedCell]] = {}
            for cell in fractions:
                line = lines.setdefault((cell.table, line_of(cell)), {})
                line[place_of(cell)] = cell
            for ((_, a), left), ((_, b), right) in combinations(lines.items(), 2):
                pairs = [(left[place], right[place]) for place in left if place in right]
                same = [cell for pair in pairs for cell in pair]
                equal = all(x.value == y.value for x, y in pairs)
                if a != b and equal and len(pairs) >= EQUAL and not told.issuperset(same):
                    told.update(same)
                    yield _copy(kind, [x for x, _ in pairs], [y for _, y in pairs])


def _copy(kind: str, one: list[PrintedCell], other: list[PrintedCell]) -> Contradiction:
    return Contradiction(
        certainty=Certainty.LIKELY if len(one) > EQUAL else Certainty.UNCLEAR,
        cells=[*one, *other],
        printed=", ".join(f"{c.metric} {c.text}" for c in one),
        follows=f"two different {kind}",
        explanation=f"Two {kind} agree in every number, {len(one)} of them: one may be a copy of "
        "the other.",
    )


def _twice(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    repeated = [
        group
        for group in by(cells, lambda c: (c.row, c.metric)).values()
        if len(group) > 1 and len({c.value for c in group}) == 1
    ]
    for groups in by(repeated, lambda g: (g[0].table, g[0].method, g[0].params)).values():
        yield Contradiction(
            certainty=Certainty.LIKELY,
            cells=[c for group in groups for c in group],
            printed=", ".join(f"{g[0].metric} {g[0].text}" for g in groups),
            follows="one row of this name",
            explanation=f"The row stands {len(groups[0])} times in the table.",
        )


def swapped(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A difference of two columns that is steady over the rows does not turn round in one row."""
    scores = [c for c in cells if c.quantity == c.metric and c.method]
    for table in by(scores, lambda c: (c.source, c.table)).values():
        rows = [
            {c.column: c for c in row} for row in by(table, lambda c: (c.method, c.params)).values()
        ]
        if len(rows) <= STEADY:
            continue
        for x, y in combinations(dict.fromkeys(c.column for c in table), 2):
            both = [(r[x], r[y]) for r in rows if x in r and y in r and r[x].unit == r[y].unit]
            if len(both) > STEADY and _alike(*both[0]):
                yield from _turned(both)


def _alike(a: PrintedCell, b: PrintedCell) -> bool:
    """Say whether two columns differ in one respect only: model, data set or metric."""
    same = a.model == b.model, (a.dataset, a.task) == (b.dataset, b.task), a.metric == b.metric
    return same.count(False) == 1 or (all(same) and a.backbone != b.backbone)


def _turned(both: Sequence[tuple[PrintedCell, PrintedCell]]) -> Iterator[Contradiction]:
    for a, b in both:
        others = [(v.value, w.value) for v, w in both if v is not a]
        usual = median(v - w for v, w in others)
        if len(others) >= MANY:
            others.remove(max(others, key=lambda pair: abs(pair[0] - pair[1] - usual)))
        low, high = min(v - w for v, w in others), max(v - w for v, w in others)
        steady = sorted((abs(low), abs(high)))
        difference = a.value - b.value
        if (
            low * high > 0
            and difference * low < 0
            and steady[0] <= abs(difference) <= steady[1]
            and abs(difference) + steady[0] >= 2 * (steady[1] - steady[0])
            and _near(b.value, [v for v, _ in others])
            and _near(a.value, [w for _, w in others])
        ):
            yield _exchange(a, b, len(others))


def _near(value: Fraction, others: Sequence[Fraction]) -> bool:
    """Say whether a number is inside the range of others, or half a range beside it."""
    low, high = min(others), max(others)
    return low - (high - low) / 2 <= value <= high + (high - low) / 2


def _exchange(a: PrintedCell, b: PrintedCell, others: int) -> Contradiction:
    return Contradiction(
        certainty=Certainty.LIKELY,
        cells=[a, b],
        printed=f"{a.text} and {b.text}",
        follows=f"{b.text} and {a.text}, by the {others} other rows",
        corrections=[exchange(a, b)],
        explanation="The two numbers seem to stand in each other's column: exchanged they differ "
        "as in all other rows.",
    )


def scales(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Percentages and shares of 1 do not stand in one column."""
    shares = [c for c in cells if c.is_percent or c.unit in FRACTIONS]
    scores = [c for c in shares if c.quantity == c.metric and not _is_delta(c)]
    for column in by(scores, lambda c: c.column).values():
        if len(column) <= EQUAL:
            continue
        largest = max(c.value for c in column)
        if column[0].is_percent and 0 < largest <= 1 and not column[0].lower_is_better:
            yield Contradiction(
                certainty=Certainty.UNCLEAR,
                cells=column,
                printed=", ".join(f"{c.metric} {c.text}" for c in column[:3]),
                follows="percentages",
                explanation="The whole column looks like shares of 1, but its unit is percent.",
            )
            continue
        for cell in column:
            usual = median(c.value for c in column if c is not cell)
            fits = [t for t in rescaled(cell.text) if usual / 3 <= Fraction(t) <= 3 * usual]
            if fits and usual and not usual / 10 <= cell.value <= 10 * usual:
                yield Contradiction(
                    certainty=Certainty.LIKELY,
                    cells=[cell],
                    printed=f"{cell.metric} {cell.text}",
                    follows=f"about {float(usual):.4g}, as in the other rows",
                    corrections=[f"{cell.metric} {cell.text} → {fits[0]}"],
                    explanation="One number is told in percent and the others as shares of 1, or "
                    "the other way round: it differs from them by a factor of about 100.",
                )


def _is_delta(cell: PrintedCell) -> bool:
    return cell.metric.startswith("delta") or cell.metric.endswith("delta")


def rounding(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Scores of one column have equally many digits behind the point."""
    scores = [c for c in cells if c.is_percent or c.unit in FRACTIONS]
    for column in by(scores, lambda c: c.column).values():
        digits = by(column, lambda c: decimals(c.text))
        usual = max(digits, key=lambda places: len(digits[places]))
        odd = [c for c in column if decimals(c.text) != usual]
        if odd:
            yield Contradiction(
                certainty=Certainty.UNCLEAR,
                cells=odd,
                printed=", ".join(f"{c.text} of {c.method}" for c in odd),
                follows=f"{usual} digits behind the point, as in {len(digits[usual])} other cells",
                explanation="These numbers were rounded otherwise than the rest of their column.",
            )


def marks(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Marked cells, bold or underlined, have the same rank in all columns; bold is the best."""
    for table in by(cells, lambda c: (c.source, c.table)).values():
        whole = by(table, lambda c: (c.dataset, c.metric)).values()
        for mark, meant in MARKS.items():
            columns = [part for column in whole for part in _groups(column, mark)]
            ranks = {
                cell: 1 + sum(c.beats(cell) for c in column)
                for column in columns
                for cell in column
                if _has(cell, mark)
            }
            if not ranks:
                continue
            all_ranks = list(ranks.values())
            usual = max(sorted(set(all_ranks)), key=all_ranks.count)
            if meant and 2 * all_ranks.count(usual) <= len(all_ranks):
                usual = meant
            wrong = [c for c in ranks if ranks[c] != usual]
            if wrong and (meant == usual or 2 * len(wrong) < len(ranks)):
                yield _marked(wrong, ranks, mark, usual)
            yield from _ties(columns, ranks, mark, usual)


def _groups(column: list[PrintedCell], mark: str) -> list[list[PrintedCell]]:
    """Return the parts of a column that are marked by themselves: models with a mark each."""
    groups = list(by(column, lambda c: (c.model, c.backbone)).values())
    own = all(len(g) > 1 and any(_has(c, mark) for c in g) for g in groups)
    return groups if own else [column]


def _has(cell: PrintedCell, mark: str) -> bool:
    return mark in cell.note.lower()


def _marked(
    wrong: list[PrintedCell], ranks: dict[PrintedCell, int], mark: str, usual: int
) -> Contradiction:
    return Contradiction(
        certainty=Certainty.LIKELY,
        cells=wrong,
        printed=", ".join(f"{c.metric} {c.text} of {c.method} {mark}" for c in wrong),
        follows=", ".join(f"{c.text} is number {ranks[c]} of its column" for c in wrong)
        + f"; {len(ranks) - len(wrong)} others are number {usual}",
        explanation="The mark stands for a rank that these cells do not have.",
    )


def _ties(
    columns: Iterable[list[PrintedCell]], ranks: dict[PrintedCell, int], mark: str, usual: int
) -> Iterator[Contradiction]:
    for column in columns:
        marked = [c for c in column if ranks.get(c) == usual]
        tied = [c for c in column if c not in ranks and c.value in {m.value for m in marked}]
        if tied:
            yield Contradiction(
                certainty=Certainty.UNCLEAR,
                cells=[*marked, *tied],
                printed=f"{marked[0].metric} {marked[0].text} of {marked[0].method} {mark}",
                follows=f"the same number, not {mark}, of {', '.join(c.method for c in tied)}",
                explanation="Printed equal, marked unequal: digits that are not printed, or chance,"
                " chose one of them.",
            )

"""Counts of parameters: shares by equation 10, growth with the rank, repeated numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from statistics import median
from typing import Any

from segsweep.audit.bounds import exchange
from segsweep.audit.cells import PrintedCell, by, smallest_head
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.numbers import Interval, agreed, exactly, printed, repairs, short, written

EQUATION = "100 · trainable / (base + added)"
FIXED = "100 · trainable / base"
ENDS = re.compile(r"_(min|max)$")
Pair = tuple[PrintedCell, PrintedCell]  # trained parameters, their share in percent


def pairs(cells: Sequence[PrintedCell]) -> dict[tuple[str, ...], list[Pair]]:
    """Return counts with their shares of every model, each setting once."""
    by_model: dict[tuple[str, ...], list[Pair]] = {}
    for (source, *setting), group in by(cells, lambda c: (c.source, *c.setting)).items():
        count = next((c for c in group if c.quantity == "params"), None)
        share = next((c for c in group if c.quantity == "percent"), None)
        if count and share and share.value < 100:
            by_model.setdefault((source, *setting[:2]), []).append((count, share))
    return by_model


def bases(rows: Sequence[Pair], equation: str, cut: bool = False) -> list[Interval]:
    """Return for each row how large the model may be before anything is added to it."""
    nothing = [c.interval(cut) for c, _ in rows if not c.role.adds]
    head = min(nothing, key=lambda i: i.middle, default=exactly(0))
    sizes = []
    for count, share in rows:
        whole = count.interval(cut) * 100 / share.interval(cut)
        added = count.role.adds and equation == EQUATION
        sizes.append(whole - (count.interval(cut) - head) if added else whole)
    return sizes


def shares(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A share is 100 · trainable / (base + added), with one base for all rows of a model."""
    for rows in pairs(cells).values():
        if len(rows) < 3:
            continue
        equations = EQUATION, FIXED
        equation = max(equations, key=lambda e: agreed(bases(rows, e))[1])
        base, agreeing = agreed(bases(rows, equation))
        if 2 * agreeing < len(rows) + 1 or agreeing < 3:
            continue
        fits = zip(bases(rows, equation), bases(rows, equation, cut=True), strict=True)
        for (count, share), (rounded, cut) in zip(rows, fits, strict=True):
            if not rounded.meets(base):
                yield _outlier(rows, count, share, base, equation, cut.meets(base))


def _outlier(
    rows: Sequence[Pair],
    count: PrintedCell,
    share: PrintedCell,
    base: Interval,
    equation: str,
    cut: bool,
) -> Contradiction:
    def fits(number: str, percent: str) -> bool:
        changed = [(a, b) for a, b in rows if a is not count]
        changed.append((count.now(number), share.now(percent)))
        return bases(changed, equation)[-1].meets(base)

    by_itself = bases([*rows, (count, share)], equation)[-1]
    whole = count.value * 100 / share.value - by_itself.middle + base.middle
    expected = 100 * count.value / whole
    fixes = [exchange(count, share)] * fits(share.text, count.text)
    fixes += [f"{share.text} % → {t} %" for t in repairs(share.text, lambda t: fits(count.text, t))]
    fixes += [f"{count.text} M → {t} M" for t in repairs(count.text, lambda t: fits(t, share.text))]
    return Contradiction(
        certainty=Certainty.unless(cut),
        cells=[count, share],
        printed=f"{count.text} M = {share.text} %",
        follows=f"{float(expected):.3f} % for a base of {short(base)} M",
        corrections=fixes or [f"{share.text} % → {written(expected, share.text)} %"],
        explanation=f"By {equation} the other rows of the model agree on the base, this one does "
        f"not.{CUT * cut}",
    )


def growth(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Parameters grow linearly with the one number that varies: rank, repetitions, width."""
    counts = [c for c in cells if c.quantity == "params"]
    families = by(counts, lambda c: (*c.row[:5], c.dataset, c.metric, frozenset(dict(c.params))))
    for family in families.values():
        for points in varying(family):
            if len(points) >= 3 and not straight(points):
                yield _bent(points)


def varying(family: Sequence[PrintedCell]) -> Iterator[dict[Fraction, PrintedCell]]:
    """Yield cells by their number, where all else is equal or follows it (as alpha = rank)."""

    def number(cell: PrintedCell) -> tuple[Fraction, ...]:
        values = [v for _, v in cell.params if isinstance(v, int | float) and v is not True]
        return tuple(dict.fromkeys(Fraction(str(v)) for v in values if v is not False))

    def words(cell: PrintedCell) -> str:
        return str([(k, v) for k, v in cell.params if not isinstance(v, int | float)])

    for group in by(family, words).values():
        if all(len(number(c)) == 1 for c in group):
            yield {number(c)[0]: c for c in sorted(group, key=number)}


def straight(points: dict[Fraction, PrintedCell], cut: bool = False) -> bool:
    """Say whether one line can pass through all printed numbers.

    Three at a time suffice, as strips in the plane of slope and constant are convex (Helly).
    """
    for (x, a), (y, b), (z, c) in combinations(sorted(points.items(), key=lambda p: p[0]), 3):
        share = (y - x) / (z - x)
        between = a.interval(cut) * (1 - share) + c.interval(cut) * share
        if not between.meets(b.interval(cut)):
            return False
    return True


def _bent(points: dict[Fraction, PrintedCell]) -> Contradiction:
    without = {x: {k: v for k, v in points.items() if k != x} for x in points}
    suspects = {x: cell for x, cell in points.items() if straight(without[x])}
    fixes = [
        f"{cell.text} → {text}"
        for x, cell in suspects.items()
        for text in repairs(cell.text, lambda t, x=x, c=cell: straight({**points, x: c.now(t)}))
    ]
    return Contradiction(
        certainty=Certainty.LIKELY,
        cells=list(suspects.values()) or list(points.values()),
        printed=", ".join(f"{cell.text} at {short(x)}" for x, cell in points.items()),
        follows="no straight line passes through these numbers",
        corrections=fixes[:5],
        explanation="The parameters that a method adds are proportional to its rank, width or "
        f"repetitions; the rest is constant.{CUT * straight(points, cut=True)}",
    )


def columns(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Numbers of a row that are quoted beside others are those of their own row."""
    for group in by(cells, lambda c: (c.source, *c.setting)).values():
        for column, quantity in (("params_m", "params"), ("params_pct", "percent")):
            told = [(c.text, c) for c in group if c.quantity == quantity][:1]
            told += [
                (getattr(c, column), c)
                for c in group
                if getattr(c, column) and not ENDS.search(c.quantity)
            ]
            texts = [text for text, _ in told]
            expected = max(texts, key=texts.count, default="")  # of equally many the cell itself
            wrong = [(t, c) for t, c in told if not printed(t).meets(printed(expected))]
            if wrong:
                right = printed(expected, cut=True)
                cut = all(printed(text, cut=True).meets(right) for text, _ in wrong)
                yield Contradiction(
                    certainty=Certainty.unless(cut),
                    cells=list(dict.fromkeys(c for _, c in [*wrong, *told[:1]])),
                    printed=", ".join(f"{text} (line {c.line})" for text, c in wrong),
                    follows=expected,
                    explanation=f"{column} is not the number of parameters of the same setting."
                    + CUT * cut,
                )


def repeated(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """A number told in two places is the same in both; a least or largest one is that."""

    def identity(cell: PrintedCell) -> tuple[Any, ...]:
        return *cell.setting, cell.dataset, cell.quantity

    for group in by((c for c in cells if c.method), identity).values():
        first = group[0]
        other = [c for c in group[1:] if not c.interval().meets(first.interval())]
        if other:
            inside = all(c.source == first.source for c in other)
            yield Contradiction(
                certainty=Certainty.LIKELY if inside else Certainty.UNCLEAR,
                cells=[first, *other],
                printed=", ".join(f"{c.text} ({c.source} {c.table})" for c in [first, *other]),
                follows="one number",
                explanation="The same setting, data set and metric has different numbers"
                + ("." if inside else " in different sources; it may have been run twice."),
            )
    for cell in cells:
        yield from _extreme(cell, cells)


def _extreme(cell: PrintedCell, cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    quantity, _, end = cell.quantity.rpartition("_")
    choose: Callable[..., Fraction] | None = {"min": min, "max": max}.get(end)
    if choose is None:
        return
    members = [
        c
        for c in cells
        if (c.quantity, c.model, c.method) == (quantity, cell.model, cell.method)
        and c.backbone in cell.backbone.split(" / ")
    ]
    if not members:
        return
    value = choose(c.value for c in members)
    chosen = [c for c in members if c.value == value]
    if not any(c.interval().meets(cell.interval()) for c in chosen):
        cut = any(c.interval(cut=True).meets(cell.interval(cut=True)) for c in chosen)
        yield Contradiction(
            certainty=Certainty.unless(cut),
            cells=[cell, *chosen],
            printed=cell.text,
            follows=f"{short(value)}, the {end} of {len(members)} cells",
            explanation=f"The quoted end of a range is not that of the cells.{CUT * cut}",
        )


def totals(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Different backbones have different numbers of parameters."""
    counts = [c for c in cells if c.quantity == "params" and c.role.trains in ("whole", "head")]
    for (_, _, model), table in by(counts, lambda c: (c.source, c.table, c.model)).items():
        rows = {b: {c.method: c for c in group} for b, group in by(table, _backbone).items()}
        for a, b in combinations(rows, 2):
            same = [m for m in rows[a] if m in rows[b] and rows[a][m].text == rows[b][m].text]
            if any(rows[a][m].role.trains == "whole" for m in same):
                yield Contradiction(
                    certainty=Certainty.LIKELY,
                    cells=[rows[x][m] for m in same for x in (a, b)],
                    printed=", ".join(f"{m} {rows[a][m].text} M" for m in same) + f": {a} and {b}",
                    follows="two numbers for two backbones",
                    explanation=f"{model} on {a} and on {b} train the same number of parameters "
                    "although the backbones differ: one column looks copied.",
                )


def _backbone(cell: PrintedCell) -> str:
    return cell.backbone


def added(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """What a method adds to the head does not jump from one backbone to the next."""
    counts = [c for c in cells if c.quantity == "params" and not c.params]
    for table in by(counts, lambda c: (c.source, c.table, c.model)).values():
        heads = {
            b: head for b, rows in by(table, _backbone).items() if (head := smallest_head(rows))
        }
        others = [c for c in table if c.role.adds and c.backbone in heads]
        extra = {c: c.value - heads[c.backbone].value for c in others}
        rows = {m: g for m, g in by(others, lambda c: c.method).items() if len(g) >= 3}
        for group in rows.values():
            usual = median(extra[c] for c in group)
            for cell in group:
                if usual > 0 and not usual / 2 <= extra[cell] <= usual * 2:
                    yield Contradiction(
                        certainty=Certainty.UNCLEAR,
                        cells=[cell, heads[cell.backbone]],
                        printed=f"{cell.text} M, {short(extra[cell])} M above the head",
                        follows=f"about {short(usual)} M, as on the other backbones",
                        explanation="The method seems to have another rank or width here than in "
                        "the other rows of the same name.",
                    )

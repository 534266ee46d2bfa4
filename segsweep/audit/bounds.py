"""Inequalities that hold whatever was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from statistics import median

from segsweep.audit.cells import PrintedCell, by
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.numbers import Interval, exactly, printed, repairs, short

AP = re.compile(r"(.*?)m?AP(?:[_@]?(50|75))?")
WHOLE_NUMBERS = ("count", "px", "pixels", "images")
OVERLAP = {"Dice": ("IoU", "Jaccard"), "mDice": ("mIoU",), "F1": ("IoU",)}


def ranges(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Percentages lie in [0, 100], counts are whole and positive, spreads not negative."""
    for cell in cells:
        delta = cell.metric.lower().startswith(("delta", "gain", "diff"))
        outside = cell.is_percent and not delta and not 0 <= cell.value <= 100
        fraction = cell.unit in ("fraction", "1") and not delta and not 0 <= cell.value <= 1
        whole = cell.unit in WHOLE_NUMBERS and (cell.value < 0 or cell.value.denominator > 1)
        quantity = cell.unit and not cell.is_percent and not delta and cell.value < 0
        spread = cell.std.startswith("-") or (cell.is_percent and float(cell.std or 0) > 50)
        for wrong, why in (
            (outside, "A share of 100 lies between 0 and 100."),
            (fraction, "A share of 1 lies between 0 and 1."),
            (whole, "A count is a whole number."),
            (quantity and not whole and not fraction, "A size, time or count is not negative."),
            (spread, "No values between 0 and 100 have this standard deviation."),
        ):
            if wrong:
                yield Contradiction(
                    certainty=Certainty.CERTAIN,
                    cells=[cell],
                    printed=f"{cell.text} {cell.unit}" + (f" ± {cell.std}" if cell.std else ""),
                    follows="a number inside the range",
                    explanation=why,
                )
        if cell.metric.endswith("BER") and cell.is_percent and 50 < cell.value <= 100:
            yield Contradiction(
                certainty=Certainty.UNCLEAR,
                cells=[cell],
                printed=cell.text,
                follows="at most 50",
                explanation="A balanced error above 50 % is worse than guessing.",
            )


def exchange(a: PrintedCell, b: PrintedCell) -> str:
    """Return the correction that two numbers change places."""
    return f"{a.metric} {a.text} ↔ {b.metric} {b.text}"


def precision(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """AP falls with the threshold: AP75 ≤ AP50 and AP50/10 + AP75/2 ≤ AP ≤ (AP50 + AP75)/2."""
    families: dict[tuple, dict[str, PrintedCell]] = {}
    for cell in cells:
        if matched := AP.fullmatch(cell.metric):
            families.setdefault((cell.row, matched[1]), {})[matched[2] or ""] = cell
    ratios: dict[tuple, list[Fraction]] = {}
    for (row, kind), family in families.items():
        if "50" in family and "" in family and family[""].value:
            ratio = family["50"].value / family[""].value
            ratios.setdefault((row[:2], kind), []).append(ratio)
    for (row, kind), family in families.items():
        if problems := falling(family):
            usual = median(ratios.get((row[:2], kind), [Fraction(1)]))
            yield _not_falling(family, problems, usual)


def falling(family: dict[str, PrintedCell], cut: bool = False) -> list[str]:
    """Return which of the inequalities between AP, AP50 and AP75 are broken.

    COCO's AP is the mean over ten thresholds, 0.50 to 0.95: five of them are not above 0.70, where
    precision is between AP75 and AP50, and five not below 0.75, where it is at most AP75.
    """
    zero = exactly(0)
    none = Interval(Fraction(0), Fraction(10**9))
    whole, low, high = (
        family[key].interval(cut) if key in family else none for key in ("", "50", "75")
    )
    wrong = []
    if high.low > low.high:
        wrong.append("AP75 > AP50")
    if whole.low > low.high:
        wrong.append("AP > AP50")
    if whole.low > ((low + high) * Fraction(1, 2)).high:
        wrong.append("AP > (AP50 + AP75)/2")
    minimum = (low if "50" in family else zero) * Fraction(1, 10)
    minimum += (high if "75" in family else zero) * Fraction(1, 2)
    if "50" in family and "75" in family and whole.high < minimum.low:
        wrong.append("AP < AP50/10 + AP75/2")
    return wrong


def _not_falling(
    family: dict[str, PrintedCell], problems: list[str], usual: Fraction
) -> Contradiction:
    def expected(key: str) -> Fraction | None:
        if "" not in family or "50" not in family:
            return None
        value = family[""].value * usual if key == "50" else family["50"].value / usual
        return None if key == "75" else value

    cut = not falling(family, cut=True)
    exchanged = [
        exchange(family[x], family[y])
        for x, y in combinations(family, 2)
        if not falling({**family, x: family[y], y: family[x]})
    ]
    fixes = exchanged + [
        f"{cell.metric} {cell.text} → {fixes_of[0]}"
        for key, cell in family.items()
        if (fixes_of := _ap_repairs(family, key, expected(key)))
    ]
    return Contradiction(
        certainty=Certainty.unless(cut),
        cells=list(family.values()),
        printed=", ".join(f"{c.metric} {c.text}" for c in family.values()),
        follows=", ".join(problems) + " is impossible",
        corrections=fixes,
        explanation="Whoever is found at a strict threshold is found at a lenient one; "
        f"in the other rows AP50 is {short(usual)} times AP.{CUT * cut}",
    )


def _ap_repairs(family: dict[str, PrintedCell], key: str, near: Fraction | None) -> list[str]:
    cell = family[key]

    def right(text: str) -> bool:
        return Fraction(text) <= 100 and not falling({**family, key: cell.now(text)})

    return repairs(cell.text, right, near)


def accuracy(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """IoU of a class is at most its accuracy, so mIoU ≤ mAcc; all accuracies are at least IoU."""
    rows = by(cells, lambda c: c.row)
    for row in rows.values():
        named = {c.metric: c for c in row}
        for metric, cell in named.items():
            other = named.get(metric.replace("IoU", "Acc", 1)) if "IoU" in metric else None
            if other and cell.interval().low > other.interval().high:
                yield _above_accuracy(cell, other)


def overlap(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """D/(2 - D) ≤ J ≤ D for Jaccard J and Dice D, pooled or as means over images or classes.

    Of one mask J = f(D) with f(D) = D/(2 - D), convex, f(0) = 0 and f(1) = 1. So a mean of J is at
    least f of the mean of D (Jensen) and at most the mean of D (its chord).
    """
    for row in by(cells, lambda c: c.row).values():
        named = {c.metric: c for c in row}
        for dice, others in OVERLAP.items():
            for jaccard in others:
                if dice in named and jaccard in named:
                    yield from _overlap(named[jaccard], named[dice])


def _overlap(jaccard: PrintedCell, dice: PrintedCell) -> Iterator[Contradiction]:
    scale = 100 if dice.is_percent else 1

    def least(text: str, cut: bool = False) -> Fraction:
        low = printed(text, cut).low
        return scale * low / (2 * scale - low)

    def right(j: str, d: str, cut: bool = False) -> bool:
        value, upper = printed(j, cut), printed(d, cut).high
        return value.high >= least(d, cut) and value.low <= upper

    if right(jaccard.text, dice.text):
        return
    cut = right(jaccard.text, dice.text, cut=True)
    yield Contradiction(
        certainty=Certainty.unless(cut),
        cells=[jaccard, dice],
        printed=f"{jaccard.metric} {jaccard.text}, {dice.metric} {dice.text}",
        follows=f"{jaccard.metric} from {short(least(dice.text))} to {dice.text}",
        corrections=[exchange(jaccard, dice)] * right(dice.text, jaccard.text)
        + jaccard.changes(lambda t: right(t, dice.text))
        + dice.changes(lambda t: right(jaccard.text, t)),
        explanation="Means over images lie between D/(2 - D) and D (Jensen's inequality); "
        f"pooled over all pixels they equal D/(2 - D).{CUT * cut}",
    )


def _above_accuracy(small: PrintedCell, large: PrintedCell) -> Contradiction:
    cut = small.interval(cut=True).low <= large.interval(cut=True).high
    return Contradiction(
        certainty=Certainty.unless(cut),
        cells=[small, large],
        printed=f"{small.metric} {small.text}, {large.metric} {large.text}",
        follows=f"{small.metric} ≤ {large.metric}",
        corrections=[
            exchange(small, large),
            *small.changes(lambda t: printed(t).low <= large.interval().high),
            *large.changes(lambda t: printed(t).high >= small.interval().low),
        ],
        explanation=f"A class's IoU counts more errors than its accuracy does.{CUT * cut}",
    )


def speed(cells: Sequence[PrintedCell]) -> Iterator[Contradiction]:
    """Images a second times seconds an image is the batch size."""
    for row in by(cells, lambda c: c.row).values():
        units = {c.unit.lower(): c for c in row}
        rate = units.get("fps") or units.get("images/s")
        time = next((units[u] for u in ("ms/iter", "ms", "ms/image") if u in units), None)
        if rate and time:
            low = rate.interval().low * time.interval().low / 1000
            high = rate.interval().high * time.interval().high / 1000
            if high < 1 or (low > 1 and int(high) < low):
                yield Contradiction(
                    certainty=Certainty.LIKELY,
                    cells=[rate, time],
                    printed=f"{rate.text} {rate.unit}, {time.text} {time.unit}",
                    follows=f"a batch of {short(Interval(low, high))} images",
                    explanation="Throughput and time of one step fit no batch size.",
                )

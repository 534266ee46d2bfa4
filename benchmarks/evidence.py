"""How often tables and decisions say what is not true, on simulated runs whose truth is known.

2,000 tables of every case, number of settings and number of seeds go through the functions that
print tables and choose settings. Spread over seeds: 0.5 points; margin: one point. In percent:

best lost    tables in which a true best has no mark
interval     tables with a difference to the full head outside its interval (of settings with the
             common spread; of those that vary more only their own spread tells)
choice       data sets where the choice is unstable, or worse than the best by more than the margin
in general   tables that call a method different beyond the data sets that were tried
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from segsweep.base.config import compose, plain
from segsweep.results.candidates import contests
from segsweep.results.decision import decide
from segsweep.results.frame import flatten
from segsweep.results.settings import Values, locate
from segsweep.results.spec import load
from segsweep.results.tables import build
from segsweep.results.wishes import Wishes

TABLES, COLUMNS = 2_000, 100  # columns, each a data set, are read at once
SEEDS, SETTINGS = (2, 3, 5, 10), (4, 6, 12)
SPREAD, LEVEL = 0.5, 50.0
LOSS = 1.5  # of the setting that is worse, in points: above the margin


@dataclass(frozen=True)
class Truth:
    """What the settings of a case are: the first the full head, the second the smallest."""

    means: np.ndarray
    spreads: np.ndarray
    runs: list[int]

    @property
    def odd(self) -> set[int]:
        """The settings whose spread is far above the others'."""
        return {i for i, spread in enumerate(self.spreads) if spread > 2 * SPREAD}


def null(settings: int, seeds: int) -> Truth:
    """All are equal."""
    return Truth(np.full(settings, LEVEL), np.full(settings, SPREAD), [seeds] * settings)


def worse(settings: int, seeds: int) -> Truth:
    """The smallest is worse than the others, which are equal."""
    truth = null(settings, seeds)
    truth.means[1] -= LOSS
    return truth


def better(settings: int, seeds: int) -> Truth:
    """The largest is better than the others, which are equal."""
    truth = null(settings, seeds)
    truth.means[0] += LOSS
    return truth


def unstable(settings: int, seeds: int) -> Truth:
    """The smallest varies 20 times as much and is ten points worse, like runs at 50, 41 and 30."""
    truth = null(settings, seeds)
    truth.means[1] -= 10
    truth.spreads[1] *= 20
    return truth


def shaky(settings: int, seeds: int) -> Truth:
    """The smallest varies ten times as much and is hardly worse, so a lucky draw is the best."""
    truth = worse(settings, seeds)
    truth.spreads[1] *= 10
    return truth


def unequal(settings: int, seeds: int) -> Truth:
    """Every other setting has twice as many runs."""
    return replace(null(settings, seeds), runs=[seeds * (1 + i % 2) for i in range(settings)])


def constant(settings: int, seeds: int) -> Truth:
    """The smallest does not vary at all, like a frozen base, and is worse."""
    truth = worse(settings, seeds)
    truth.spreads[1] = 0.0
    return truth


CASES: tuple[Callable[[int, int], Truth], ...] = (
    null,
    worse,
    better,
    unstable,
    shaky,
    unequal,
    constant,
)


@cache
def setting(number: int) -> Values:
    """Return the record of a setting as the frame has it, without its numbers."""
    words = ["peft=full_head"] if number == 0 else ["peft=lora", f"peft.rank={number}"]
    config = compose(["model=maskdino_tiny", "data=digits", *words])
    entry = dict(
        zip(("unit", "direction"), config.metrics.names()[config.metrics.key], strict=True)
    )
    quantity = config.metrics.quantity(config.metrics.key)
    record = {
        "schema": 1,
        "id": "",
        "name": "",
        "status": "done",
        "config": plain(config),
        "params": {"trainable": 1_000 * number or 100_000, "percent": 1.0},
        "metrics": {config.metrics.key: entry | {"quantity": quantity}},
    }
    (values,) = locate([flatten(record)])
    return values


def run(number: int, place: str, seed: int, value: float) -> Values:
    """Return one run of a setting."""
    about = {"id": f"{number}-{place}-{seed}", "data_set": place, "data.fingerprint": place}
    return setting(number) | about | {"config.seed": seed, "metrics.segm_AP.value": value}


def drawn(truth: Truth, places: Iterable[str], dice: np.random.Generator) -> list[Values]:
    """Draw the runs of a table with a column for each place."""
    return [
        run(i, place, seed, float(truth.means[i] + truth.spreads[i] * dice.standard_normal()))
        for place in places
        for i, runs in enumerate(truth.runs)
        for seed in range(runs)
    ]


def one_set(truth: Truth, tables: int, dice: np.random.Generator) -> dict[str, float]:
    """Return the percentages of wrong statements about single data sets."""
    spec = replace(load("against_full_head"), mean=False, ranks=False)
    best = truth.means.max()
    wrong = dict.fromkeys(("best lost", "interval", "choice"), 0)
    for begin in range(0, tables, COLUMNS):
        places = [f"set {i:04}" for i in range(begin, min(begin + COLUMNS, tables))]
        runs = drawn(truth, places, dice)
        (table,) = build(spec, runs)
        numbers = {row.labels: int(row.run.values["id"].split("-")[0]) for row in table.rows}
        for column in table.columns:
            marked = {numbers[key] for key in table.bold(column) | table.ties(column)}
            wrong["best lost"] += truth.means.argmax() not in marked
            wrong["interval"] += any(
                not one.low <= truth.means[numbers[key]] - truth.means[0] <= one.high
                for key, one in table.against(column).items()
                if numbers[key] not in truth.odd
            )
        names = {row.setting: numbers[row.labels] for row in table.rows}
        for contest in contests(runs, {}):
            chosen = decide(contest, Wishes()).chosen
            number = None if chosen is None else names[chosen]
            wrong["choice"] += number is not None and bool(
                number in truth.odd or best - truth.means[number] > 1.0
            )
    return {name: 100 * count / tables for name, count in wrong.items()}


def several_sets(sets: int, settings: int, seeds: int, tables: int, dice: Any) -> dict[str, float]:
    """Return how often a method is called different in general; how it fits a set varies by 1."""
    spec = replace(load("against_full_head"), ranks=False)
    wrong = 0
    for _ in range(tables):
        runs = []
        for place in range(sets):
            effects = LEVEL + dice.standard_normal(settings)
            truth = Truth(effects, np.full(settings, 0.3), [seeds] * settings)
            runs += drawn(truth, [f"set {place}"], dice)
        (table,) = build(spec, runs)
        wrong += any(row.beyond_remains for row in table.rows)
    return {"in general": 100 * wrong / tables}


def rows() -> Iterator[dict[str, Any]]:
    """Yield a row for each case, number of settings and number of seeds."""
    dice = np.random.default_rng(0)
    for case, settings, seeds in product(CASES, SETTINGS, SEEDS):
        about = {"case": case.__name__, "settings": settings, "seeds": seeds}
        yield about | one_set(case(settings, seeds), TABLES, dice)
    for sets, seeds in product((4, 8), (2, 3, 5)):
        about = {"case": f"{sets} sets with effects of their own", "settings": 3, "seeds": seeds}
        yield about | several_sets(sets, 3, seeds, TABLES // 4, dice)

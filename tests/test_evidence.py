"""What may be said of settings run a few times holds as often as it is claimed."""

from __future__ import annotations

import itertools
from math import inf, sqrt
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import evidence as simulation
from segsweep.results import over_sets
from segsweep.results.evidence import Evidence, pooled, seeds_needed
from segsweep.results.quantiles import dunnett, student

TIGHT = {"A2": (50.8, 50.9, 51.0), "full": (51.0, 51.2, 51.1)}


@pytest.mark.parametrize(
    ("seeds", "one_sided", "two_sided"),
    [(2, 2.83, 3.40), (3, 2.50, 2.91), (5, 2.36, 2.69), (10, 2.29, 2.59)],
)
def test_quantiles_are_those_of_400_000_draws(seeds, one_sided, two_sided) -> None:
    others, freedom = [1 / seeds] * 5, 6 * (seeds - 1)
    assert dunnett(1 / seeds, others, freedom, False) == pytest.approx(one_sided, abs=0.01)
    assert dunnett(1 / seeds, others, freedom, True) == pytest.approx(two_sided, abs=0.015)


def test_quantiles_agree_with_scipy_for_unequal_numbers() -> None:
    from scipy.stats import dunnett as reference

    rows = [[1.0, 2.0], [3.0, 3.5, 4.0, 4.5], [2.0, 2.2, 2.4]]
    interval = reference(*rows, control=[5.0, 5.5, 6.5], rng=np.random.default_rng(0))
    evidence = Evidence({"control": (5.0, 5.5, 6.5), **dict(enumerate(rows))})
    found = evidence.against("control")
    low, high = interval.confidence_interval()
    for i in range(3):
        assert found[i].low == pytest.approx(low[i], abs=0.05)
        assert found[i].high == pytest.approx(high[i], abs=0.05)


def test_two_rows_are_student_s_t() -> None:
    assert dunnett(1, [1], 1, True) == pytest.approx(student(1, 0.025), rel=1e-3)
    assert dunnett(1 / 4, [1 / 9], 7, False) == pytest.approx(student(7, 0.05), rel=1e-3)
    assert dunnett(1, [1], inf, True) == pytest.approx(1.96, abs=2e-3)


def test_what_is_unstable_is_neither_pooled_nor_reference() -> None:
    evidence = Evidence({"lora": (50.0, 41.0, 30.0), **TIGHT})
    assert evidence.unstable == {"lora": 2}
    assert evidence.noise is not None
    assert evidence.noise.sd == pytest.approx(0.1)
    assert evidence.stable() == ["A2", "full"]
    assert evidence.against("lora") == {}
    assert evidence.loss("A2", "full") < 0.5
    assert evidence.loss("lora", "full") > 30  # by its own spread


def test_two_values_are_never_enough_to_call_one_of_two_settings_unstable() -> None:
    assert Evidence({"a": (50.0, 30.0), "b": (50.0, 50.1)}).unstable == {}


def test_a_constant_is_no_noise() -> None:
    evidence = Evidence({"frozen": (20.0, 20.0, 20.0), **TIGHT})
    assert evidence.constant == {"frozen"}
    assert evidence.noise is not None
    assert evidence.noise.freedom == 4
    reach = evidence.against("full")["frozen"].high - evidence.against("full")["frozen"].middle
    assert reach < evidence.against("full")["A2"].high - evidence.against("full")["A2"].middle


def test_one_run_each_tells_nothing() -> None:
    evidence = Evidence({"a": (50.0,), "b": (40.0,)})
    assert not evidence.known
    assert evidence.among_best() == set()
    assert evidence.against("a") == {}
    assert evidence.loss("b", "a") == inf
    assert evidence.seeds_reach() == []
    assert Evidence({"a": (50.0,), "b": (40.0,)}, noise=8.0).among_best() == {"a", "b"}


def test_seeds_still_needed() -> None:
    evidence = Evidence({"a": (50.0, 51.0), "b": (50.2, 49.2), "c": (49.0, 50.0)})
    reaches = evidence.seeds_reach()
    assert reaches == sorted(reaches, reverse=True)
    assert seeds_needed(reaches, 1e6) == 2
    assert seeds_needed(reaches, 0.0) is None
    needed = seeds_needed(reaches, 1.0)
    assert needed is not None
    assert reaches[needed - 2] <= 1.0 < reaches[needed - 3]


values = st.floats(0, 100).map(lambda value: round(value, 2))
columns = st.dictionaries(
    st.integers(0, 9), st.lists(values, min_size=1, max_size=5), min_size=2, max_size=6
)


@settings(deadline=None)
@given(columns)
def test_the_best_is_always_among_the_best(runs) -> None:
    evidence = Evidence(runs)
    marked = evidence.among_best()
    assert not marked or max(evidence.means, key=evidence.means.__getitem__) in marked


@settings(deadline=None)
@given(columns, st.floats(-50, 50).map(round), st.sampled_from([0.5, 2.0]))
def test_evidence_does_not_depend_on_zero_or_unit(runs, shift, unit) -> None:
    one, other = (
        Evidence(runs),
        Evidence({k: [unit * v + shift for v in r] for k, r in runs.items()}),
    )
    if one.unstable == other.unstable and one.constant == other.constant:  # but for rounding
        for a, b in itertools.permutations(runs, 2):
            assert other.loss(a, b) == pytest.approx(unit * one.loss(a, b), rel=1e-4, abs=1e-4)


def test_sign_flips_are_exact() -> None:
    differences = [1.0, 2.0, -0.5, 3.0, 1.5, 2.5]
    signs = list(itertools.product((1, -1), repeat=6))
    totals = [abs(sum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    wanted = sum(total >= abs(sum(differences)) - 1e-9 for total in totals) / len(totals)
    assert over_sets.sign_flips(differences) == over_sets.Test(wanted, 6)
    assert over_sets.sign_flips([1.0] * 6).p == 2 / 2**6
    assert 0.0001 <= over_sets.sign_flips([1.0] * 40).p < 0.001


def test_seeds_of_a_set_flip_together_beyond_these_sets() -> None:
    by_set = {f"set {i}": [1.0 + i, 2.0, 3.0] for i in range(6)}
    assert over_sets.on_these(by_set).units == 18
    assert over_sets.beyond_these(by_set) == over_sets.Test(2 / 2**6, 6)


def test_how_many_pairs_holm_needs() -> None:
    assert over_sets.needed(1) == 6
    assert over_sets.needed(11) == 9
    assert over_sets.least(8, 11) > 0.05 >= over_sets.least(9, 11)


def test_holm_and_pooled_deviation() -> None:
    assert over_sets.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert pooled([[1.0, 3.0], [5.0], [10.0, 10.0, 10.0]]) == pytest.approx(sqrt(2 / 3))
    assert pooled([[1.0]]) is None


@given(st.lists(st.tuples(values, values).map(sorted), min_size=1, max_size=8))
def test_intervals_share_a_letter_exactly_if_they_overlap(intervals) -> None:
    names = over_sets.letters([(low, high) for low, high in intervals])
    for (a, first), (b, second) in itertools.combinations(zip(intervals, names, strict=True), 2):
        assert bool(set(first) & set(second)) == (max(a[0], b[0]) <= min(a[1], b[1]))


def test_ranks_over_sets() -> None:
    levels = {"best": 3.0, "second": 2.0, "worst": 0.0}
    dice = np.random.default_rng(0)
    gains = {
        name: {place: list(level + 0.3 * dice.standard_normal(3)) for place in "abcd"}
        for name, level in levels.items()
    }
    ranks = over_sets.ranks(gains)
    assert [rank.mean for rank in ranks.values()] == [1, 2, 3]
    assert ranks["best"].low == ranks["best"].high == 1
    assert ranks["best"].first == 1.0
    assert len({rank.group for rank in ranks.values()}) == 3
    assert (
        over_sets.ranks({k: {p: v for p, v in g.items() if p in "ab"} for k, g in gains.items()})
        == {}
    )
    assert fmean(rank.first for rank in ranks.values()) == pytest.approx(1 / 3)


@pytest.mark.parametrize("case", simulation.CASES)
def test_wrong_statements_are_as_rare_as_claimed(case) -> None:
    """300 tables of the smallest kind; the full simulation is a benchmark, see docs/evidence.md."""
    wrong = simulation.one_set(case(4, 3), 300, np.random.default_rng(0))
    assert wrong["best lost"] <= 9  # 5, and three standard deviations of the count
    assert wrong["interval"] <= 9
    assert wrong["choice"] <= 9


def test_seeds_of_few_sets_say_nothing_beyond_them() -> None:
    dice = np.random.default_rng(0)
    assert simulation.several_sets(4, 3, 2, 20, dice)["in general"] == 0
    assert simulation.several_sets(8, 3, 2, 60, dice)["in general"] <= 14

"""Which setting is chosen, and the words for it: from numbers of a few seeds, without any page."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from segsweep.base.errors import UserError
from segsweep.results.candidates import (
    Candidate,
    Contest,
    OperatingPoint,
    contests,
    outcomes,
    timed,
)
from segsweep.results.decision import Decision, decide
from segsweep.results.frame import read
from segsweep.results.grounds import Grounds, brief
from segsweep.results.wishes import Limit, Wishes, parse_limit
from tests.contests import (
    CLOSE,
    NAMES,
    NOISY,
    TASK,
    UNSTABLE,
    analysis,
    cases,
    contest,
    seeded,
)
from tests.records import record, write


def saying(decision: Decision, part: str) -> str:
    """Return the one sentence that has this part."""
    (sentence,) = (words for words in decision.words if part in words)
    return sentence


@given(cases())
@settings(max_examples=80, deadline=None)
def test_no_limit_is_ever_broken_and_what_binds_is_named(case: tuple[Contest, Wishes]) -> None:
    task, wishes = case
    decision, grounds = decide(task, wishes), Grounds(task)
    chosen = next((one for one in task.candidates if one.name == decision.chosen), None)
    fit = [c for c in grounds.tried if not decision.broken[c.name]]
    if chosen is not None:
        assert all(limit.met(chosen) for limit in wishes.limits())
        assert chosen in grounds.stable
        assert not grounds.doubtful(chosen)
        assert decision.words[0].startswith(f"Choose {chosen.name}: ")
        loss = decision.worse[chosen.name]
        best = max(map(grounds.mean, fit))
        assert grounds.mean(chosen) == best or (loss is not None and loss <= wishes.margin)
    elif fit and not grounds.stop(wishes.floor):
        assert grounds.doubtful(max(fit, key=grounds.mean))
    elif grounds.stable and not grounds.stop(wishes.floor):
        assert all(any(not limit.met(one) for limit in wishes.limits()) for one in grounds.stable)
        text = " ".join(decision.words[1:])
        assert any(limit.text() in text for limit in wishes.limits())


def test_what_is_unstable_is_neither_chosen_nor_compared_with() -> None:
    decision = decide(UNSTABLE, Wishes())
    assert decision.words == [
        "Choose Adapters (I=2): AP 50.90 ± 0.10 (3), 1.20 MB to store per task, 12.00 ms an image.",
        "Of 2 settings surely within 1.00 AP of the best it is the smallest: it could be up to "
        "0.37 worse than Full head (AP 51.10 ± 0.10 (3), 12.00 MB).",
        "Adapters (I=2) is 0.20 AP (−0.03 to 0.43) worse than the full head (AP 51.10 ± 0.10 (3)): "
        "could be none.",
        "LoRA (r=4) is unstable: AP 40.33 ± 10.02 (3), seed 2 (30.00) is far from the others; it "
        "is neither chosen nor compared with.",
    ]
    assert decision.broken["LoRA (r=4)"] == ["unstable"]
    seeds = replace(UNSTABLE.candidates[0], by_seed={7: 50.0, 8: 30.0, 9: 50.5})
    odd = decide(replace(UNSTABLE, candidates=[seeds, *UNSTABLE.candidates[1:]]), Wishes())
    assert "seed 8 (30.00)" in saying(odd, "unstable")
    small = decide(UNSTABLE, Wishes(size=0.5))
    assert small.chosen is None
    assert "unstable" in small.words[-1]


def test_a_doubtful_best_is_no_choice_and_a_doubtful_smaller_one_is_named() -> None:
    lucky = contest((), (53.0, 52.9), (51.2, 53.4), (51.0, 51.1))
    assert Grounds(lucky).evidence.doubtful == {"Adapters (I=2)"}
    assert decide(lucky, Wishes(margin=4.0)).chosen == "LoRA (r=4)"
    best = contest((), (48.0, 48.1), (51.2, 53.4), (48.0, 48.2))
    decision = decide(best, Wishes())
    assert decision.chosen is None
    assert decision.words == [
        "No choice yet: the best, Adapters (I=2) (AP 52.30 ± 1.56 (2)), varies more over seeds "
        "than the others do, and nothing else is sure to be within 1.00 AP of it. More seeds of it "
        "would tell."
    ]
    small = contest((), (51.2, 53.4), (52.0, 52.1), (53.0, 53.1))
    decision = decide(small, Wishes(margin=4.0))
    assert decision.chosen == "Adapters (I=2)"
    assert decision.words[-1].startswith("LoRA (r=4) (0.40 MB) could be up to 3.39 AP worse than")
    assert "varies more over seeds" in decision.words[-1]


def test_noise_that_hides_nearly_everything_is_said() -> None:
    decision = decide(NOISY, Wishes())
    assert decision.chosen == "Adapters (I=2)"
    assert saying(decision, "standard deviation").startswith(
        "Noise over seeds (standard deviation 16.16 AP) is larger than the margin and hides nearly "
        "everything: each of the 3 settings could be the best."
    )
    assert "LoRA (r=4) (0.40 MB) could be up to 40.80 AP worse than Adapters (I=2); 22 more" in (
        saying(decision, "more seeds of both")
    )
    assert not any("standard deviation" in words for words in decide(CLOSE, Wishes()).words)


def test_a_spread_of_ten_beside_a_better_setting_is_no_tie() -> None:
    spread = contest((), (57.6, 47.6, 37.58), (60.4, 60.6, 60.5), (60.3, 60.5, 60.7))
    decision = decide(spread, Wishes())
    assert decision.chosen == "Adapters (I=2)"
    assert "47.59 ± 10.01 (3), seed 2" in saying(decision, "is unstable")


def test_the_margin_moves_the_choice_and_seeds_still_needed_are_counted() -> None:
    assert decide(TASK, Wishes()).chosen == "Full head"
    assert decide(TASK, Wishes(margin=6.5)).chosen == "LoRA (r=8)"
    decision = decide(CLOSE, Wishes())
    assert decision.chosen == "Full head"
    assert decision.words[1] == (
        "It has the best mean of the 4 settings that qualify, and nothing cheaper is sure to be "
        "within 1.00 AP of it."
    )
    assert decision.words[3:] == [
        "Adapters (I=2) (1.20 MB) could be up to 2.06 AP worse than Full head; more than 30 seeds "
        "of both would be needed to settle it.",
        "LoRA (r=4) (0.40 MB) could be up to 2.82 AP worse than Full head; 3 more seeds of both "
        "would settle it.",
    ]  # the frozen base surely loses more than the margin
    assert decide(CLOSE, Wishes(margin=2.1)).chosen == "Adapters (I=2)"
    once = saying(decide(CLOSE, Wishes(margin=2.0)), "Adapters (I=2) (1.20 MB)")
    assert once.endswith("1 more seed of both would settle it.")
    at = CLOSE.gains(CLOSE.candidates[3]), CLOSE.gains(CLOSE.candidates[2])
    exact = sum(at[0]) / 3 - sum(at[1]) / 3
    assert saying(decide(CLOSE, Wishes(margin=exact)), "(1.20 MB) could be").endswith("Full head.")


def test_what_only_seeds_of_the_others_would_settle_is_said() -> None:
    lora, adapters = TASK.candidates[1:3]
    others = [replace(lora, name=f"s{k}", size=2.0 + k, by_seed={0: 30.0}) for k in range(9)]
    own = [
        replace(lora, by_seed=seeded(50.0, 50.4)),
        replace(adapters, by_seed=seeded(51.0, 51.4)),
    ]
    decision = decide(replace(TASK, candidates=[*others, *own]), Wishes(margin=2.3))
    sentence = saying(decision, "LoRA (r=8) (0.40 MB) could")
    assert sentence.endswith("; more seeds of the other settings would settle it.")


def test_few_of_many_settings_are_named() -> None:
    base = TASK.candidates[1]
    many = [
        replace(base, name=f"LoRA (r={k})", size=k, by_seed=seeded(40.0 + k / 50, 41.0, 42.0))
        for k in range(12)
    ]
    decision = decide(replace(TASK, candidates=many), Wishes(margin=0.2))
    assert len([words for words in decision.words if "could be up to" in words]) == 3


def test_nothing_learnt_is_no_choice() -> None:
    for values in ((0.0, 0.0, 0.0), (0.0,)):
        decision = decide(contest(*[values] * 4), Wishes())
        assert decision.chosen is None
        (sentence,) = decision.words
        assert sentence.startswith("Nothing has been learnt, so nothing is chosen: the best, ")
        assert "learning rate" in sentence
    tiny = contest((0.01,), (0.01,), (0.05,), (0.02,))
    assert "Adapters (I=2), has AP 0.05, less than 1.00" in decide(tiny, Wishes()).words[0]
    assert decide(tiny, Wishes(floor=0.02)).chosen == "Adapters (I=2)"
    masks = replace(tiny, unit="")  # what is no percentage has no points
    assert decide(masks, Wishes()).chosen == "Adapters (I=2)"


def test_nothing_above_the_frozen_base_is_no_choice() -> None:
    same = contest((80.1, 80.1, 80.1), (79, 80, 80.5), (80.0, 80.3, 80.8), (80.4, 79.7, 80.9))
    (sentence,) = decide(same, Wishes()).words
    assert sentence.startswith(
        "No setting is better than Frozen base (AP 80.10 ± 0.00 (3)), which trains nothing, by "
        "more than noise: nothing needs to be trained, or nothing was learnt"
    )
    for single in ((80.1,), (79.0,), (80.0,), (80.05,)), ((80.1,), (79.0,), (80.3,), (81.0,)):
        (sentence,) = decide(contest(*single), Wishes()).words  # what is 0.9 above may be noise
        assert "trains nothing, by 1.00 or more, and one run each tells no more: " in sentence
    assert decide(contest((80.1,), (79.0,), (81.3,), (80.2,)), Wishes()).chosen == "Adapters (I=2)"
    areas = replace(contest((0.5,), (0.6,), (0.7,), (0.55,)), unit="")
    assert decide(areas, Wishes()).chosen == "Adapters (I=2)"  # no points of percent


def test_where_less_is_better_signs_are_turned_once() -> None:
    values = (30, 30, 30), (12.2, 12.0, 12.1), (12.9, 12.6, 12.8), (12.0, 12.4, 12.2)
    decision = decide(contest(*values, higher=False), Wishes(margin=0.5))
    assert decision.chosen == "LoRA (r=4)"  # the best, though small
    assert "better than the full head" in saying(decision, "full head (")
    assert decide(contest(*values), Wishes()).chosen is None  # none beats 30


def test_one_run_each_tells_nothing_about_noise() -> None:
    single = [replace(one, by_seed=seeded(one.values[1])) for one in TASK.candidates]
    decision = decide(replace(TASK, candidates=single), Wishes(size=5.0))
    assert decision.chosen == "Adapters (I=2)"
    assert decision.words[1].startswith("Noise over seeds is not known")
    assert "only more seeds can tell" in decision.words[2]
    assert set(decision.worse.values()) == {None}


def test_gaps_to_the_full_head_have_their_interval() -> None:
    decision = decide(TASK, Wishes(size=5.0))
    assert decision.chosen == "LoRA (r=8)"
    assert saying(decision, "on the table").startswith("LoRA (r=8) leaves 5.00 AP (4.09 to 5.91)")
    near = replace(TASK.candidates[3], by_seed=seeded(39.9, 40.2, 40.5))
    task = replace(TASK, candidates=[*TASK.candidates[:3], near])
    assert decide(task, Wishes(margin=2.0)).words[2].endswith(": could be none.")
    wild = replace(near, by_seed=seeded(39.9, 70.2, 10.5))
    task = replace(TASK, candidates=[*TASK.candidates[:3], wild])
    assert "which is unstable" in saying(decide(task, Wishes(margin=2.0)), "than the full head")


def test_costs_order_what_is_good_enough() -> None:
    def costing(one: Candidate, *missed: float) -> Candidate:
        return replace(one, outcomes=[[OperatingPoint(0.5, value, 0.0)] for value in missed])

    frozen, lora, adapters, head = TASK.candidates
    own = [costing(frozen, 1.0), costing(lora, 110.0, 130.0), costing(adapters, 100.0, 120.0), head]
    wishes = Wishes(size=5.0, miss_cost=2.0, margin=2.0)
    decision = decide(replace(TASK, candidates=own), wishes)
    assert decision.chosen == "Adapters (I=2)"  # the best of what is stored in 5 MB, and errs less
    wide = decide(replace(TASK, candidates=own), replace(wishes, size=None, margin=7.0))
    assert wide.words[1].startswith("Of 3 settings surely within 7.00 AP of the best it has the")
    assert "cost of errors: 220.00 per 1,000" in saying(wide, "Expected")
    unpriced = decide(TASK, replace(wishes, margin=7.0))
    assert unpriced.chosen == "LoRA (r=8)"
    assert "kept predictions" in saying(unpriced, "unknown")


def test_numbers_for_a_page_are_those_of_the_decision() -> None:
    told, grounds = brief(CLOSE, 1.0), Grounds(CLOSE)
    assert [one["name"] for one in told["candidates"]] == [c.name for c in grounds.tried]
    best = grounds.tried[3]
    assert told["loss"][3] == [decide(CLOSE, Wishes()).worse[c.name] for c in grounds.tried]
    assert best.name == "Full head"
    assert told["reaches"] == sorted(told["reaches"], reverse=True)
    assert len(told["reaches"]) == 29


def test_nothing_qualifies() -> None:
    limits = [Limit("site=a", False, 40.0)]
    binding = decide(TASK, Wishes(size=5.0, must=limits))
    assert binding.chosen is None
    assert binding.words == [
        "Nothing qualifies.",
        "size ≤ 5.00 MB is what binds: without it Full head qualifies (size 12.00 MB).",
        "site=a ≥ 40.00 is what binds: without it LoRA (r=8) qualifies (site=a 30.00).",
    ]
    both = decide(TASK, Wishes(latency=5.0, size=-1.0))
    assert "latency ≤ 5.00 ms rules out 4 of 4; the nearest is Frozen base" in both.words[1]
    untimed = [replace(one, latency=None) for one in TASK.candidates]
    unknown = decide(replace(TASK, candidates=untimed), Wishes(latency=5.0))
    assert "python -m segsweep bench" in unknown.words[1]
    assert decide(replace(TASK, candidates=[]), Wishes()).words == [
        "No run has finished on this data set yet."
    ]


def test_settings_that_are_not_done_are_counted(tmp_path: Any) -> None:
    runs = [record("lora", 40.0 + seed, seed=seed) for seed in range(2)]
    runs.append(record("adapter", None))
    write(tmp_path, *runs)
    words = {run["name"]: [f"peft={run['choices']['peft']}", "data=digits", f"seed={k}"]
             for k, run in enumerate(runs)}  # fmt: skip
    words |= {f"new{k}": ["peft=full_head", "data=digits", f"seed={k}"] for k in range(3)}
    words |= {"elsewhere": ["peft=frozen", "data=coco", "seed=0"]}
    (task,) = contests(read(tmp_path).runs, {}, words)
    assert task.missing == 2
    assert Grounds(task).progress() == "1 of 3 settings is done."
    (sentence,) = decide(task, Wishes()).words
    assert sentence == "No choice yet: only LoRA (r=8) is done (AP 40.50 ± 0.71 (2))."
    two = contest((), (50.1, 50.4), (50.0, 50.3), (), missing=2)
    assert Grounds(two).progress() == "2 of 4 settings are done."
    assert decide(two, Wishes()).chosen is not None


def test_operating_points_follow_from_the_analysis() -> None:
    best, *edges = outcomes(analysis(recall=80.0, precision=50.0))
    assert best == pytest.approx(OperatingPoint(0.5, 200.0, 800.0))
    assert [point.score for point in edges] == pytest.approx([k / 10 for k in range(9, -1, -1)])
    assert edges[0] == OperatingPoint(0.9, 1000.0, 0.0)
    assert edges[4] == pytest.approx(OperatingPoint(0.5, 200.0, 800.0))
    assert edges[9] == pytest.approx(OperatingPoint(0.0, 150.0, 1250.0))
    assert outcomes(None) == []


def test_costs_move_the_score_and_the_choice() -> None:
    careful, eager = outcomes(analysis(60.0, 90.0)), outcomes(analysis(90.0, 40.0))
    own = [
        replace(TASK.candidates[1], outcomes=[careful]),
        replace(TASK.candidates[2], outcomes=[eager]),
    ]
    task = replace(TASK, candidates=own)
    assert decide(task, Wishes(miss_cost=1, false_alarm_cost=10)).chosen == "LoRA (r=8)"
    decision = decide(task, Wishes(miss_cost=50, false_alarm_cost=1))
    assert decision.chosen == "Adapters (I=2)"
    assert re.search(r"cost of errors: \d+\.\d\d per 1,000 objects", decision.words[2])
    unpriced = decide(TASK, Wishes(miss_cost=1))
    assert "kept predictions" in unpriced.words[2]


def test_requirements_name_what_was_measured() -> None:
    assert parse_limit("site=a>=30", NAMES) == Limit("site=a", False, 30.0)
    assert parse_limit("segm_APs <= 3.5", NAMES) == Limit("segm_APs", True, 3.5)
    with pytest.raises(UserError, match="did you mean 'site=a'"):
        parse_limit("site=b>=30", NAMES)
    with pytest.raises(UserError, match="say what and how much"):
        parse_limit("site=a", NAMES)


def test_times_of_the_benchmark_join_the_runs_of_their_setting() -> None:
    run = {"config.model.name": "m", "config.model.weights": "w", "config.peft.rank": 4}
    bench = run | {"config.model.weights": None, "ended": "1", "bench.median_ms": 9.0}
    other = bench | {"config.bench.form": "unmerged", "bench.median_ms": 11.0, "ended": "2"}
    found = timed([run, run | {"config.peft.rank": 8}], [other, bench])
    assert [one.get("bench.median_ms") for one in found] == [9.0, None]

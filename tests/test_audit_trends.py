"""Sentences about trends, trade-offs, spreads, and what a table does not name."""

import csv
from dataclasses import replace

import pytest

from segsweep.audit import cells, claims, rules
from segsweep.audit.findings import Certainty
from segsweep.base.errors import UserError

REPORTED = cells.read(rules.REPORTED)
ADAPTERS = "table=2a; metric=AP_mean; method=adapter_sequential"
LORA = "table=2a; metric=AP_mean; method=lora"
PAIR = "table=main; dataset=Leaf; metric=Dice; method={}"


def judge(kind, selected, against="", stated="", table=REPORTED, source="000"):
    claim = claims.Claim(source, "said", kind, selected, against, stated, "", "loose", 1)
    return claims.judge(claim, table)


def changed(value, /, **words):
    return [
        replace(c, text=value) if all(getattr(c, k) == v for k, v in words.items()) else c
        for c in REPORTED
    ]


def test_gains_that_shrink():
    verdict = judge("slowing", ADAPTERS, stated="I")
    assert verdict.holds is False
    assert verdict.follows.endswith("gain 1.121, 0.089, 0.31")
    assert judge("slowing", ADAPTERS, stated="I", table=changed("43.6", text="43.86")).holds


def test_which_saturates_first():
    assert judge("saturating", LORA, ADAPTERS, "r|I").holds
    verdict = judge("saturating", ADAPTERS, LORA, "r|I", changed("42.95", text="40.95"))
    assert verdict.holds is False
    assert "20.4 % against 2.0 % of the whole gain" in verdict.follows


def test_better_with_fewer_parameters():
    place = "table=2a; metric=AP; model=SEEM; dataset=ZeroWaste"
    verdict = judge("front", f"{place}; I=2; residual=kappa+lambda", place)
    assert verdict.holds is False
    assert "24.5 of lora alpha=16 r=16 (1.84 M)" in verdict.follows
    assert judge("front", f"{place}; r=16", place).holds


def test_gains_beyond_the_printed_spreads():
    sides = PAIR.format("conv_lora"), PAIR.format("lora")
    assert judge("apart", *sides, source="003").holds  # 84.3 ± 0.34 against 83.6 ± 0.13
    near = changed("84.0", text="84.3", dataset="Leaf")
    assert judge("apart", *sides, table=near, source="003").holds is False
    assert judge("apart", *reversed(sides), source="003").holds is False


def test_what_a_table_does_not_name():
    assert judge("told", "table=A1", stated="model").holds is False
    assert judge("told", "table=A1", stated="dataset").holds
    assert judge("told", "table=3", stated="dataset", source="002").holds is False


@pytest.mark.parametrize(
    ("kind", "selected", "against", "stated", "told"),
    [
        ("slowing", ADAPTERS, "", "r", "has no 'r'"),
        ("slowing", f"{ADAPTERS}; I=1|2", "", "I", "a trend needs three cells"),
        ("saturating", LORA, "table=2a; metric=AP; method=lora", "r", "two columns"),
        ("front", "table=2b; method=lora", "table=A1", "", "no cell has|has no params_m"),
        ("apart", LORA, ADAPTERS, "", "with spreads"),
    ],
)
def test_trends_of_nothing_are_refused(kind, selected, against, stated, told):
    table = [replace(c, params_m="") for c in REPORTED]
    with pytest.raises(UserError, match=told):
        judge(kind, selected, against, stated, table)


def test_all_sentences_are_in_the_file():
    kinds = {line["kind"] for line in csv.DictReader(rules.REPORTED.with_name("claims.csv").open())}
    assert {"slowing", "saturating", "front", "apart", "told"} <= kinds


def test_a_table_that_names_nothing_is_unclear_not_false():
    statement = claims.Claim("000", "names", "told", "table=A1", "", "model", "", "silent", 1)
    (finding,) = claims.claims([statement], REPORTED, REPORTED)
    assert finding.certainty == Certainty.UNCLEAR
    assert "loose" not in finding.explanation

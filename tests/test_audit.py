"""The verb `audit`: rules and claims on small tables, and what the reported numbers give."""

import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.audit import (
    bounds,
    cells,
    claims,
    counts,
    deltas,
    forms,
    layout,
    means,
    numbers,
    relations,
    rules,
)
from segsweep.audit.findings import Certainty
from segsweep.base.errors import UserError
from segsweep.verbs import audit

ROOT = Path(__file__).resolve().parent.parent
ROW = dict.fromkeys((*cells.COLUMNS, *cells.OPTIONAL), "") | {
    "source": "x",
    "table": "1",
    "model": "M",
    "backbone": "B",
    "method": "lora",
    "method_params": "{}",
    "dataset": "D",
    "metric": "AP",
    "unit": "%",
}
ROLES = cells.read_roles(rules.REPORTED.with_name("roles.csv"))
FEW = settings(max_examples=25, deadline=None, database=None)
percent = st.floats(5, 95)


def cell(value, **words):
    row = {**ROW, **words, "value": str(value)}
    row["method_params"] = json.dumps(words.get("method_params", {}))
    return cells._cell(2, row, [], ROLES)


def row(method="lora", **values):
    return [cell(value, method=method, metric=metric) for metric, value in values.items()]


def findings(rule, table):
    return [f for f in rule(table) if f.certainty != Certainty.EXPLAINED]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return path


@pytest.fixture(scope="module")
def reported():
    return rules.audit(rules.REPORTED)


# numbers


@FEW
@given(st.floats(-1000, 1000), st.integers(0, 4))
def test_an_interval_has_what_was_rounded_or_cut(value, places):
    text = f"{value:.{places}f}"
    assert numbers.printed(text).meets(numbers.exactly(Fraction(value)))
    scale = 10**places
    cut = f"{int(value * scale) / scale:.{places}f}"
    if Fraction(cut) != 0:
        assert numbers.printed(cut, cut=True).meets(numbers.exactly(Fraction(value)))


def test_a_slip_is_one_digit_or_two_swapped():
    assert "42.95" in set(numbers.slips("40.95"))
    assert "24.95" in set(numbers.slips("42.95"))
    assert "52.95" in set(numbers.slips("42.95"))
    assert "2.95" not in set(numbers.slips("42.95"))
    assert numbers.repairs("40.95", lambda t: t in ("43.95", "42.95"), Fraction(43))[0] == "42.95"


# means


def averages(values, change=0.0):
    sets = [cell(f"{v:.2f}", dataset=f"set {i}") for i, v in enumerate(values)]
    mean = sum(values) / len(values) + change
    return [*sets, cell(f"{mean:.2f}", dataset="Average")]


@FEW
@given(st.lists(percent, min_size=3, max_size=8))
def test_rounded_means_are_right_and_another_digit_is_found(values):
    assert findings(means.means, averages(values)) == []
    (finding,) = findings(means.means, averages(values, change=3 if values[0] < 50 else -3))
    right = averages(values)[-1].text
    assert finding.certainty in (Certainty.CERTAIN, Certainty.LIKELY)
    fixes = [float(fix.split(" → ")[1]) for fix in finding.corrections]
    assert any(abs(fix - float(right)) < 0.02 for fix in fixes)


def test_cut_digits_are_explained():
    table = [cell("1.00", dataset=a) for a in "ab"] + [cell("1.01", dataset="c")] * 2
    table = [*table, cell("1.02", dataset="e"), cell("1.01", dataset="mean")]
    assert findings(means.means, table) == []


def class_ious(method, policy, values):
    names = ["background", *(f"class{i}" for i in range(len(values) - 1))]
    used = values if policy else values[1:]
    ious = {f"IoU_{n}": f"{v:.2f}" for n, v in zip(names, values, strict=True)}
    return row(method, **ious, mIoU=f"{sum(used) / len(used):.2f}")


@FEW
@given(st.lists(percent, min_size=3, max_size=6), st.booleans())
def test_background_policies(values, policy):
    values = [98.0, *values]
    same = [*class_ious("a", policy, values), *class_ious("b", policy, [97.0, *values[1:]])]
    assert findings(means.means, same) == []
    mixed = [*same, *class_ious("c", not policy, values)]
    (finding,) = findings(means.means, mixed)
    assert finding.certainty == Certainty.DEFINITION
    assert {c.method for c in finding.cells} == {"a", "b", "c"}


@pytest.mark.parametrize("form", list(deltas.FORMS))
def test_deltas(form):
    values = {"full_head": 50.0, "lora": 45.0, "adapter": 48.0, "bitfit": 40.0}
    table = []
    for method, value in values.items():
        number, reference = numbers.printed(f"{value:.1f}"), numbers.printed("50.0")
        delta = float(deltas.FORMS[form](number, reference).middle)
        table += row(method, AP=f"{value:.1f}", delta_AP=f"{delta:.3f}")
    assert findings(deltas.deltas, table) == []
    table[3] = table[3].now("-7.500")
    assert [f.cells[0] for f in findings(deltas.deltas, table)] == [table[3]]


# counts


def model(base, trained, head=0.4, change=None):
    """A parameter table by equation 10: full head, head, and methods that add."""
    table = []
    for method, number in {"full_head": base / 2, "embeddings_only": head, **trained}.items():
        added = number - head if method in trained else 0
        share = f"{100 * number / (base + added):.2f}"
        if change == method:
            share = f"{float(share) + 2:.2f}"
        table += [
            cell(f"{number:.2f}", method=method, metric="trainable_params", unit="M"),
            cell(share, method=method, metric="trainable_pct_eq10"),
        ]
    return table


@FEW
@given(st.floats(30, 400), st.lists(st.floats(0.5, 20), min_size=2, max_size=5))
def test_shares_follow_equation_10(base, trained):
    methods = {f"adapter{i}": number for i, number in enumerate(trained)}
    assert findings(counts.shares, model(base, methods)) == []
    (finding,) = findings(counts.shares, model(base, methods, change="adapter0"))
    assert {c.method for c in finding.cells} == {"adapter0"}


@FEW
@given(st.floats(0, 30), st.floats(0.01, 5), st.integers(0, 3))
def test_parameters_grow_with_the_rank(constant, slope, place):
    def table(wrong=-1):
        return [
            cell(
                f"{constant + slope * rank + (place == wrong):.2f}",
                metric="trainable_params",
                method_params={"r": rank, "alpha": rank},
                unit="M",
            )
            for place, rank in enumerate((2, 4, 8, 16))
        ]

    assert findings(counts.growth, table()) == []
    (finding,) = findings(counts.growth, table(wrong=place))
    assert finding.certainty == Certainty.LIKELY
    assert (2, 4, 8, 16)[place] in {dict(c.params)["r"] for c in finding.cells}


def test_numbers_told_twice():
    printed = cell("4.21", metric="trainable_params", unit="M")
    assert findings(counts.columns, [printed, cell("34", params_m="4.21")]) == []
    assert findings(counts.columns, [printed, cell("34", params_m="4.31")])
    assert findings(counts.repeated, [cell("36.5"), cell("36.50", table="A1")]) == []
    (again,) = findings(counts.repeated, [cell("36.5"), cell("38.5", table="A1")])
    assert again.certainty == Certainty.LIKELY
    shares = [
        cell(v, metric="trainable_pct", method_params={"r": r}) for r, v in ((2, "1.0"), (4, "3.0"))
    ]
    assert findings(counts.repeated, [*shares, cell("3.0", metric="trainable_pct_max")]) == []
    assert findings(counts.repeated, [*shares, cell("2.0", metric="trainable_pct_max")])


def test_two_backbones_have_two_totals():
    def table(other):
        return [
            cell(value, backbone=backbone, method="full_ft", metric="trainable_params", unit="M")
            for backbone, value in (("DINOv2", "98.0"), ("Swin", other))
        ]

    assert findings(counts.totals, table("97.9")) == []
    assert len(findings(counts.totals, table("98.0"))) == 1


def test_what_a_method_adds():
    def table(last):
        return [
            cell(value, backbone=b, method=method, metric="updated_params", unit="M")
            for b, fixed, lora in (("a", "9.1", "9.8"), ("b", "7.6", "8.4"), ("c", "9.1", last))
            for method, value in (("fix", fixed), ("lora", lora))
        ]

    assert findings(counts.added, table("9.9")) == []
    assert [f.cells[0].text for f in findings(counts.added, table("11.2"))] == ["11.2"]


# bounds


@FEW
@given(st.lists(percent, min_size=10, max_size=10), st.integers(0, 2))
def test_precision_of_any_curve_is_possible(values, places):
    falling = sorted(values, reverse=True)
    numbers_ = {"AP": sum(falling) / 10, "AP50": falling[0], "AP75": falling[5]}
    table = row(**{name: f"{value:.{places}f}" for name, value in numbers_.items()})
    assert findings(bounds.precision, table) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"segm_mAP": "36.6", "segm_mAP50": "28.7", "segm_mAP75": "38.7"}, "AP > AP50"),
        ({"AP50": "50.0", "AP75": "51.0"}, "AP75 > AP50"),
        ({"AP": "46.0", "AP50": "50.0", "AP75": "40.0"}, "(AP50 + AP75)/2"),
        ({"AP": "20.0", "AP50": "60.0", "AP75": "50.0"}, "AP50/10"),
    ],
)
def test_precision_that_is_impossible(values, problem):
    (finding,) = findings(bounds.precision, row(**values))
    assert problem in finding.follows
    assert finding.certainty == Certainty.CERTAIN


@FEW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 2))
def test_overlap_of_any_images_is_possible(dices, places):
    dice = 100 * sum(dices) / len(dices)
    jaccard = 100 * sum(d / (2 - d) for d in dices) / len(dices)
    table = row(Dice=f"{dice:.{places}f}", Jaccard=f"{jaccard:.{places}f}")
    assert findings(bounds.overlap, table) == []


def test_overlap_that_is_impossible():
    assert findings(bounds.overlap, row(Dice="85.0", IoU="73.0"))  # 85/(2 - 0.85) = 73.9
    assert findings(bounds.overlap, row(Dice="85.0", IoU="86.0"))


def test_accuracy_ranges_and_speed():
    assert findings(bounds.accuracy, row(mIoU="52.8", mAcc="64.0", aAcc="84.5")) == []
    (finding,) = findings(bounds.accuracy, row(mIoU="52.8", mAcc="46.0", aAcc="84.5"))
    assert "mAcc 46.0 → 64.0" in finding.corrections
    assert findings(bounds.ranges, row(AP="100", BER="49.9", delta_AP="-3")) == []
    wrong = [cell("100.1"), cell("-1"), cell("1.5", unit="count"), cell("50", std="60")]
    assert len(findings(bounds.ranges, [*wrong, cell("-2", unit="h"), cell("2", unit="1")])) == 6
    times = [cell("20", metric="fps", unit="FPS"), cell("50", metric="t", unit="ms")]
    assert findings(bounds.speed, times) == []
    assert findings(bounds.speed, [times[0], times[1].now("51")]) == []  # 19.5 · 50.5 < 1000
    assert findings(bounds.speed, [times[0], times[1].now("30")])


# relations


def tied(change=0.0):
    pairs = [(m, 1.1 * m + 10) for m in range(20, 60, 4)]
    pairs[5] = pairs[5][0], pairs[5][1] + change
    return [c for i, (a, b) in enumerate(pairs) for c in row(f"m{i}", mIoU=a, mAcc=f"{b:.1f}")]


def test_a_row_off_the_line_stands_out():
    assert findings(relations.relations, tied()) == []
    (finding,) = findings(relations.relations, tied(-10))
    assert {c.method for c in finding.cells} == {"m5"}
    assert finding.corrections


def test_supersets_copies_and_marks():
    better = [*row("fix", mAP="30.0"), *row("bitfit", mAP="29.5")]
    assert findings(relations.supersets, better) == []
    assert findings(relations.supersets, [better[0], better[1].now("28.5")])
    scores = {"AP": "36.61", "AP50": "58.72", "AP75": "38.73"}
    copied = [*row("a", **scores), *row("b", **scores)]
    assert findings(layout.copies, copied[:-1] + row("b", AP75="38.74")) == []
    assert len(findings(layout.copies, copied)) == 1
    marked = [
        cell(value, method=method, dataset=column, note="underlined" * (method == "a"))
        for column in "uvwx"
        for method, value in (("a", 3), ("b", 2))
    ]
    assert findings(layout.marks, marked) == []
    marked[0] = marked[0].now("1")
    assert [f.cells for f in findings(layout.marks, marked)] == [[marked[0]]]


def test_more_layers_take_no_less_time():
    steps = [
        cell(value, metric="inference_time", unit="ms/iter", method_params={"I": i})
        for i, value in enumerate(("54.92", "56.38", "58.29", "61.12"), 1)
    ]
    assert findings(relations.times, steps) == []
    steps[1] = steps[1].now("65.38")
    assert [f.cells for f in findings(relations.times, steps)] == [steps[1:3]]


# claims


def claim(kind, selected, against="", stated="", tolerance="", wording="exact", source="x"):
    return claims.Claim(source, "said", kind, selected, against, stated, tolerance, wording, 1)


RANKS = [cell(v, method_params={"r": r}) for r, v in ((2, "40.0"), (4, "42.0"), (8, "41.0"))]
OTHER = cell("41.5", method="adapter")


@pytest.mark.parametrize(
    ("kind", "selected", "against", "right", "wrong"),
    [
        ("value", "mean: method=lora", "", "41", "42"),
        ("value", "= 2 * 3 + 1", "", "7", "8"),
        ("ratio", "r=2", "r=4", "0.9..1", "2"),
        ("difference", "max: method=lora", "r=2", "2", "2.2"),
        ("reduction", "r=2", "r=4", "4.8", "6"),
        ("count", "method=lora", "", "3", "4"),
        ("range", "method=lora", "", "40..42", "40..43"),
        ("within", "method=lora", "", "40..42", "41..42"),
        ("best", "r=4", "method=lora|adapter", "42", "43"),
        ("best", "r=4", "method=lora|adapter", "", "41"),
        ("above", "r=4|8", "r=2", "all", None),
        ("above", "method=lora", "method=adapter", "any", "most"),
        ("above", "r!=4; method=lora", "method=adapter", None, "any"),
        ("rising", "r=2|4", "", "r", None),
        ("rising", "method=lora", "", None, "r"),
        ("falling", "r=4|8", "", "r", None),
        ("unit", "method=lora", "", "%", "ms"),
    ],
)
def test_kinds_of_claims(kind, selected, against, right, wrong):
    for stated, holds in ((right, True), (wrong, False)):
        if stated is not None:
            statement = claim(kind, selected, against, stated, "0.1" if kind == "reduction" else "")
            assert bool(claims.judge(statement, [*RANKS, OTHER]).holds) == holds


def test_a_claim_about_the_size_of_a_model():
    table = model(52.02, {"adapter1": 1.12, "adapter2": 1.92})
    assert claims.judge(claim("base", "model=M", stated="52.02"), table).holds
    assert claims.judge(claim("base", "model=M", stated="52.9"), table).holds is False


def test_a_stated_number_that_was_cut_is_no_certain_error():
    statements = [claim("ratio", "r=8", "r=2", stated="1.02"), claim("value", "r=8", stated="43")]
    cut, wrong = claims.claims(statements, RANKS[::2], RANKS[::2])  # 41/40 = 1.025
    assert (cut.certainty, wrong.certainty) == (Certainty.LIKELY, Certainty.CERTAIN)


def test_claims_that_only_hold_with_a_misprint_are_one_finding():
    statements = [claim("best", "r=4", "method=lora"), claim("value", "r=2", stated="40")]
    mended = [RANKS[0].now("44.0"), *RANKS[1:]]
    assert list(claims.claims(statements, RANKS, RANKS)) == []
    (finding,) = claims.claims(statements, RANKS, mended)
    assert "rests on a misprint" in finding.explanation


@pytest.mark.parametrize(
    ("selected", "told"),
    [("r=3", "no cell has"), ("r", "column=value"), ("method=lora", "3 cells")],
)
def test_a_claim_about_nothing_is_refused(selected, told):
    with pytest.raises(UserError, match=told):
        claims.judge(claim("value", selected, stated="1"), RANKS)


# files and the command line


def test_a_file_without_a_column_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("source,table,model,value\n")
    with pytest.raises(UserError, match=r"no column backbone, method.*needed are source, table"):
        cells.read(path)


def test_values_that_are_no_numbers_are_named_by_line(tmp_path):
    rows = [{"value": "41.0"}, {"value": "4l.0"}, {"value": ""}, {"value": "1", "std": "±2"}]
    rows[0]["items"] = "1.5"
    path = write(tmp_path / "mine.csv", [*rows, {"value": "1", "method_params": "r=8"}])
    with pytest.raises(UserError) as error:
        cells.read(path)
    for words in (
        "line 2: items is '1.5'",
        "line 3: value is '4l.0'",
        "line 4: value",
        "line 5: std",
        "line 6: method_param",
    ):
        assert words in str(error.value)


def test_what_methods_do_is_told_by_a_file(tmp_path):
    path = write(tmp_path / "mine.csv", [{"value": "41", "method": "theirs"}, {"value": "42"}])
    roles = tmp_path / "roles.csv"
    roles.write_text("method,trains,adds,reference\ntheirs,head,no,no\n")
    first, second = cells.read(path, roles)
    assert (first.role.trains, first.role.adds) == ("head", False)
    assert second.role == cells.Role()
    roles.write_text("method,trains,adds,reference\ntheirs,all,no,no\n")
    with pytest.raises(UserError, match=r"line 2: trains 'all' \(choices: whole, head"):
        rules.audit(path)


def test_a_table_of_ones_own(tmp_path, capsys):
    good = write(tmp_path / "good.csv", [{"value": "60", "metric": "AP50"}, {"value": "40"}])
    assert audit.main([str(good), "--strict"]) == 0
    bad = write(tmp_path / "bad.csv", [{"value": "60", "metric": "AP50"}, {"value": "62"}])
    path = tmp_path / "found.json"
    assert audit.main([str(bad), "--json", str(path)]) == 0
    assert audit.main([str(bad), "--strict"]) == 1
    (finding,) = json.loads(path.read_text())
    assert finding["id"] == "x-1-precision-1"
    assert finding["certainty"] == "certain"
    assert "impossible" in capsys.readouterr().out


def test_what_the_reported_numbers_say_against_themselves(reported):
    known = {f.id: f for f in reported}
    average = known["000-2a-mean-1"]
    assert (average.printed, list(average.corrections)) == ("40.95", ["40.95 → 42.95"])
    impossible = known["002-1-precision-1"]
    assert "segm_mAP50 28.7 → 58.7" in impossible.corrections
    mixed = known["003-multi-class-trans10k-style-mean-1"]
    assert mixed.certainty == Certainty.DEFINITION
    assert "conv_lora 69.64 / 67.09" in mixed.follows
    assert mixed.explanation.endswith("On one footing conv_lora is above TransLab.")
    cut = known["000-2b-recount-1"]
    assert (cut.certainty, list(cut.corrections)) == (Certainty.LIKELY, ["1.12 → 1.13"])
    resting = [f for f in reported if "rests on a misprint" in f.explanation]
    assert [f.place[0] for f in resting] == ["001"]
    assert "rank 8 has the best LoRA average" in resting[0].printed


def test_how_much_is_found(reported):
    real, explained = forms.split(reported)
    assert forms.summary(real) == "53 findings: 16 certain, 3 likely, 7 definition, 27 unclear"
    assert len(explained) == 3
    assert len({f.id for f in reported}) == len(reported)


def test_the_page_is_what_the_command_writes(reported):
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    assert page == forms.page(reported, rules.RULES)


def test_the_verb_does_not_import_torch():
    code = (
        "import sys; from segsweep.verbs.audit import main; main([]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"

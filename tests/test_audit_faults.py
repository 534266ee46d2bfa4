"""The audit of tables that are right, and of the same tables with one fault in them.

All tables are those of the papers; what the audit says against a paper's own numbers is mended or
left out, so that what remains is clean.
"""

from decimal import Decimal

import pytest
from published import CLEAN, SETTING, found, of, one, published

from segsweep.audit import numbers
from segsweep.audit.findings import Certainty

CERTAIN, LIKELY = Certainty.CERTAIN, Certainty.LIKELY


def with_deltas(lines):
    """Add the delta of equation 11 to every average of Table 2a."""
    means = {line["method"] + line["method_params"]: line for line in of(lines, metric="AP_mean")}
    full = Decimal(means["full_head{}"]["value"])
    for line in means.values():
        delta = 100 * (Decimal(line["value"]) / full - 1)
        lines.append({**line, "metric": "delta_AP_mean", "value": f"{delta:.2f}", "note": ""})
    return lines


RANK8 = {"method_params": '{"alpha": 8, "r": 8}'}


@pytest.mark.parametrize("place", CLEAN, ids=" ".join)
def test_a_clean_table_has_no_finding(place, tmp_path):
    lines = published(*place)
    assert len(lines) > 30
    assert found(lines, tmp_path) == []


def test_clean_deltas_have_no_finding(tmp_path):
    assert found(with_deltas(published("000", "2a")), tmp_path) == []


# Each returns the lines with the fault, those that must be named first, and the correction.


def wrong_mean():
    lines = published("000", "2a")
    mean = one(lines, metric="AP_mean", **RANK8)
    mean["value"] = "44.91"
    return lines, [mean], "44.91 → 42.91"


def wrong_mean_with_a_delta():
    lines = with_deltas(published("000", "2a"))
    mean = one(lines, metric="AP_mean", **RANK8)
    mean["value"] = "42.19"
    return lines, [mean], "42.19 → 42.91"


def wrong_mean_of_the_reference():
    lines = with_deltas(published("000", "2a"))
    mean = one(lines, metric="AP_mean", method="full_head")
    mean["value"] = "48.55"
    return lines, [mean], "48.55 → 45.55"


def member_with_a_delta():
    lines = with_deltas(published("000", "2a"))
    member = one(lines, model="SEEM", dataset="ZeroWaste", metric="AP", **RANK8)
    member["value"] = "93.9"
    return lines, [member], "SEEM · Focal-L · lora · alpha=8 r=8 · ZeroWaste · AP: 93.9 → 23.9"


def member_alone():
    lines, _, correction = member_with_a_delta()
    lines = [line for line in lines if line["metric"] != "delta_AP_mean"]
    return lines, of(lines, value="93.9"), correction


def wrong_delta():
    lines = with_deltas(published("000", "2a"))
    delta = one(lines, metric="delta_AP_mean", **RANK8)
    delta["value"] = "-7.80"
    return lines, [delta], "delta_AP_mean -7.80 → -5.80"


def wrong_sign():
    lines = with_deltas(published("000", "2a"))
    delta = one(lines, metric="delta_AP_mean", **RANK8)
    delta["value"] = "5.80"
    return lines, [delta], "5.80 → -5.80"


def swapped_numbers():
    lines = published("000", "2a")
    a = one(lines, model="SEEM", dataset="NDD20", **RANK8)
    b = one(lines, model="SEEM", dataset="ZeroWaste", **RANK8)
    a["value"], b["value"] = b["value"], a["value"]
    return lines, [a, b], "AP 23.9 ↔ AP 76.89"


def swapped_columns():
    lines = published("002", "2")
    hit = []
    for a in of(lines, metric="mIoU"):
        b = one(lines, **{k: a[k] for k in SETTING}, metric="mAcc")
        a["value"], b["value"] = b["value"], a["value"]
        hit += [a, b]
    return lines, hit, "mIoU ↔ mAcc, the whole columns"


def swapped_digits():
    lines = published("000", "2b")
    place = {"backbone": "ResNet-50", "method": "full_head"}
    hit = [one(lines, metric=m, **place) for m in ("trainable_params", "trainable_pct_eq10")]
    hit[0]["value"] = "28.65"
    return lines, hit, "28.65 M → 28.56 M"


def row_twice_in_a_set():
    lines = published("002", "2")
    copied = of(lines, backbone="SAM-B", method="lora")
    hit = of(lines, backbone="SAM-B", method="arc")
    for line, other in zip(hit, copied, strict=True):
        line["value"] = other["value"]
    return lines, copied + hit, ""


def row_over_all_sets():
    lines = published("000", "2a")
    copied = of(lines, metric="AP", **RANK8)
    hit = of(lines, metric="AP", method_params='{"alpha": 4, "r": 4}')
    for line, other in zip(hit, copied, strict=True):
        line["value"] = other["value"]
    mean = one(lines, metric="AP_mean", method_params='{"alpha": 4, "r": 4}')
    mean["value"] = one(lines, metric="AP_mean", **RANK8)["value"]
    return lines, [*copied, mean, one(lines, metric="AP_mean", **RANK8), *hit], ""


def row_in_another_set():
    lines = published("000", "2a")
    kept = of(lines, model="SEEM", dataset="NDD20")
    hit = of(lines, model="SEEM", dataset="WIXray")
    copied = [line for line in kept if of(hit, method_params=line["method_params"])]
    copied = [one(kept, method=h["method"], method_params=h["method_params"]) for h in hit]
    lines = copied + hit
    for line, other in zip(hit, copied, strict=True):
        line["value"] = other["value"]
    return lines, lines, ""


def same_row_twice():
    lines = published("002", "2")
    hit = of(lines, backbone="SAM-B", method="lora")
    again = [dict(line) for line in hit]
    return lines + again, hit + again, ""


def fraction():
    lines = published("003", "main")
    cell = one(lines, metric="IoU", dataset="Leaf", method="lora")
    cell["value"] = numbers.rescaled(cell["value"])[1]
    return lines, [cell], "IoU 0.737 → 73.7"


def impossible_ap50():
    lines = published("002", "1")
    place = {"backbone": "SAM-B", "method": "lora"}
    hit = [one(lines, metric=m, **place) for m in ("segm_mAP", "segm_mAP50", "segm_mAP75")]
    hit[1]["value"] = "23.6"
    return lines, hit, "segm_mAP50 23.6 → 53.6"


def cut_mean():
    lines = published("003", "multi-class (Trans10K-style)")
    for mean in of(lines, metric="mIoU"):
        mean["value"] = f"{Decimal(mean['value']):.1f}"
    mean = one(lines, metric="mIoU", method="conv_lora")
    assert mean["value"] == "67.1"
    mean["value"] = "67.0"
    return lines, [mean], "67.0 → 67.1"


def cut_share():
    lines = published("000", "2b")
    share = one(lines, metric="trainable_pct_eq10", backbone="ResNet-50", method="full_head")
    for line in of(lines, params_pct="54.91"):
        line["params_pct"] = ""
    share["value"] = "54.9"  # of 54.902 to 54.916: right
    wrong = one(lines, metric="trainable_pct_eq10", backbone="ResNet-50", method="decoder_only")
    for line in of(lines, params_pct=wrong["value"]):
        line["params_pct"] = ""
    count = one(lines, metric="trainable_params", backbone="ResNet-50", method="decoder_only")
    exact = Decimal(count["value"]) * 100 / Decimal("52.02")
    wrong["value"] = str(exact.quantize(Decimal("0.1"), "ROUND_DOWN"))
    assert wrong["value"] != f"{exact:.1f}"
    return lines, [count, wrong], f"{wrong['value']} % → {exact:.1f} %"


def wrong_share():
    lines = published("000", "2b")
    share = one(lines, metric="trainable_pct_eq10", backbone="Swin-L", method="full_head")
    for line in of(lines, params_pct=share["value"]):
        line["params_pct"] = ""
    count = one(lines, metric="trainable_params", backbone="Swin-L", method="full_head")
    share["value"] = "12.73"
    return lines, [count, share], "12.73 % → 12.37 %"


def wrong_bold():
    lines = published("003", "main")
    for dataset, method in (("Leaf", "conv_lora"), ("Road", "conv_lora"), ("ISIC 2017", "vpt")):
        one(lines, metric="Dice", dataset=dataset, method=method)["note"] = "bold"
    return lines, [one(lines, metric="Dice", dataset="ISIC 2017", method="vpt")], ""


def impossible_share():
    lines = published("003", "multi-class (Trans10K-style)")
    lines = [{**line, "items": "100"} for line in of(lines, metric="Acc")]
    values = ("90.00", "94.00", "94.80", "95.00")
    for line, value in zip(lines, values, strict=True):
        line["value"] = value
    return lines, [lines[2]], "94.80 → 95.00"


@pytest.mark.parametrize(
    ("fault", "rule", "certainty"),
    [
        (wrong_mean, "mean", CERTAIN),
        (wrong_mean_with_a_delta, "mean", CERTAIN),
        (wrong_mean_of_the_reference, "mean", CERTAIN),
        (member_with_a_delta, "mean", CERTAIN),
        (member_alone, "mean", CERTAIN),
        (wrong_delta, "delta", CERTAIN),
        (wrong_sign, "delta", CERTAIN),
        (swapped_numbers, "swap", LIKELY),
        (swapped_columns, "accuracy", CERTAIN),
        (swapped_digits, "share", CERTAIN),
        (row_twice_in_a_set, "copy", Certainty.UNCLEAR),
        (row_over_all_sets, "copy", LIKELY),
        (row_in_another_set, "copy", LIKELY),
        (same_row_twice, "copy", LIKELY),
        (fraction, "scale", LIKELY),
        (impossible_ap50, "precision", CERTAIN),
        (cut_mean, "mean", LIKELY),
        (cut_share, "share", LIKELY),
        (wrong_share, "share", CERTAIN),
        (wrong_bold, "mark", LIKELY),
        (impossible_share, "grim", CERTAIN),
    ],
)
def test_one_fault_is_found(fault, rule, certainty, tmp_path):
    lines, expected, correction = fault()
    everything = found(lines, tmp_path)
    findings = [f for f in everything if f.rule == rule]
    assert len(findings) == 1, [(f.rule, f.printed) for f in everything]
    places = {number for number, line in enumerate(lines, 2) if any(line is e for e in expected)}
    assert {c.line for c in findings[0].cells[: len(expected)]} == places
    assert findings[0].certainty == certainty
    assert correction in ("", *findings[0].corrections)
    assert "delta" not in {f.rule for f in everything} - {rule}


def test_what_does_not_tell_which_is_wrong_accuses_all(tmp_path):
    lines = published("000", "2a")
    one(lines, model="SEEM", dataset="NDD20", **RANK8)["value"] = "74.89"
    (finding,) = found(lines, tmp_path)
    assert len(finding.cells) == 9
    assert "The mean or one of its members is wrong: the mean by +0.25" in finding.explanation
    assert "or a member by -2.01" in finding.explanation
    assert "One slip" not in finding.explanation


def test_what_a_cell_is_quoted_as_more_often_is_right(tmp_path):
    lines = published("000", "2b")
    count = one(lines, metric="trainable_params", backbone="ResNet-50", method="full_head")
    count["value"] = "25.86"
    (finding,) = [f for f in found(lines, tmp_path) if f.rule == "column"]
    assert (finding.cells[0].text, finding.follows) == ("25.86", "28.56")

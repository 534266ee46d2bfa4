"""The audit of leaderboards: how they are read, and the rules that only they need."""

import pytest
from published import LINES

from segsweep.audit import grim, leaderboard, rules
from segsweep.audit.findings import Certainty
from segsweep.base.errors import UserError
from segsweep.verbs import audit

COLUMNS = {  # of a paper's table
    "Params (M) ↓": ("", "trainable_params"),
    "CVC-612 S ↑": ("CVC-612", "S_alpha"),
    "ISIC Dice": ("ISIC 2017", "Dice"),
    "ISIC IoU": ("ISIC 2017", "Jaccard"),
    "Leaf Dice (%)": ("Leaf", "Dice"),
    "Leaf IoU (%)": ("Leaf", "IoU"),
    "SBU BER": ("SBU", "BER"),
}


def board(path, change=lambda rows: None, separator=","):
    """Write the main table of 003 as a leaderboard, the best number of each column bold."""
    cells = {
        (line["method"], line["dataset"], line["metric"]): line
        for line in LINES
        if (line["source"], line["table"]) == ("003", "main")
    }
    methods = dict.fromkeys(m for m, *_ in cells if m not in ("domain_specific", "from_scratch"))
    rows = [["Method", *COLUMNS]]
    for method in methods:
        row = [cells[method, *place] for place in COLUMNS.values()]
        texts = [c["value"] + (f" ± {c['std']}" if c["std"] else "") for c in row]
        rows.append([method, *(f"**{t}**" if method == "conv_lora" else t for t in texts)])
    rows[-1][1] = rows[-1][1].strip("*")
    change(rows)
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n", encoding="utf-8")
    return [f for f in rules.audit(path) if f.certainty != Certainty.EXPLAINED]


def replaced(row, column, text):
    def change(rows):
        (place,) = (i for i, line in enumerate(rows) if line[0] == row)
        rows[place][rows[0].index(column)] = text

    return change


def exchanged(a, b):
    def change(rows):
        x, y = rows[0].index(a), rows[0].index(b)
        for row in rows[1:]:
            row[x], row[y] = row[y], row[x]

    return change


def copied(rows):
    rows[4] = [rows[4][0], *rows[3][1:]]


@pytest.mark.parametrize("separator", [",", ";", "\t", " | "])
def test_a_clean_leaderboard_has_no_finding(separator, tmp_path):
    assert board(tmp_path / "board.csv", separator=separator) == []


@pytest.mark.parametrize(
    ("change", "rule", "certainty", "cells"),
    [
        (replaced("vpt", "Leaf Dice (%)", "**83.8**"), "mark", Certainty.LIKELY, {"vpt"}),
        (replaced("lora", "SBU BER", "2.54"), "mark", Certainty.UNCLEAR, {"lora", "conv_lora"}),
        (replaced("lora", "Leaf Dice (%)", "83.61"), "rounding", Certainty.UNCLEAR, {"lora"}),
        (replaced("lora", "Leaf Dice (%)", "183.6"), "range", Certainty.CERTAIN, {"lora"}),
        (replaced("lora", "Leaf Dice (%)", "0.836"), "scale", Certainty.LIKELY, {"lora"}),
        (replaced("lora", "ISIC Dice", "76.0"), "overlap", Certainty.CERTAIN, {"lora"}),
        (exchanged("Leaf Dice (%)", "Leaf IoU (%)"), "overlap", Certainty.CERTAIN, None),
        (copied, "copy", Certainty.LIKELY, {"vpt", "adapter"}),
    ],
)
def test_a_fault_in_a_leaderboard(change, rule, certainty, cells, tmp_path):
    (finding,) = [f for f in board(tmp_path / "board.csv", change) if f.rule == rule]
    assert finding.certainty == certainty
    assert cells in (None, {c.method for c in finding.cells})
    if cells is None:
        assert list(finding.corrections) == ["IoU ↔ Dice, the whole columns"]


def audited(folder, text, items=None):
    path = folder / "board.csv"
    path.write_text(text, encoding="utf-8")
    return [f for f in rules.audit(path, items) if f.certainty != Certainty.EXPLAINED]


def test_what_cells_look_like(tmp_path):
    path = tmp_path / "board.csv"
    path.write_text(
        "Method;Backbone;Params;COCO mask AP@0.5 ↑;Err (%) ↓;ΔAP;n\nPEFT;;;;;;\n"
        "**A**;R50;4,0M;\\textbf{58,7 ± 0,3};2,5%;-;12\n"
        "B;;44M;$57.9 \\pm .2$;\\underline{3.0};−1,2;12\n"
    )
    a, b = (
        {c.metric: c for c in leaderboard.read_leaderboard(path) if c.method == m} for m in "AB"
    )
    assert list(a) == ["trainable_params", "AP50", "Err"]
    ap = a["AP50"]
    assert (ap.text, ap.std, ap.unit, ap.items) == ("58.7", "0.3", "%", "12")
    assert (ap.dataset, ap.model, ap.note) == ("COCO mask", "PEFT", "bold, higher is better")
    assert (a["trainable_params"].text, a["trainable_params"].unit) == ("4.0", "M")
    assert (b["AP50"].std, b["Err"].lower_is_better) == ("0.2", True)
    assert (b["delta_AP"].text, b["Err"].note) == ("-1.2", "underlined, lower is better")
    assert (a["AP50"].role.reference, b["AP50"].role.reference) == (True, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n", "needs a line of heads"),
        ("Method,AP\nx,1,2\n", r"line 2: has 3 cells, its heads are 2: Method, AP"),
        ("Method,AP\nx,42.1\ny,4l.1\nz,40\n", r"line 3, column AP: '4l.1' is no number such as"),
        ("1,2\n3,4\n", "no column of names among 1, 2"),
        ("Method,AP\nx,none\n", "no column of numbers among Method, AP"),
        ("Method,AP,AP\nx,1,2\n", "more than one column is headed 'AP'"),
        ("Method,Acc,n\nx,42.1,0\n", "line 2, items: '0' is no number of items"),
        ("Method,Acc,n\nx,42.1,1.5\n", "line 2, items: '1.5' is no number of items"),
    ],
)
def test_what_is_no_leaderboard(text, told, tmp_path):
    with pytest.raises(UserError, match=told):
        audited(tmp_path, text)


ACCURACIES = "Method,Acc,AP\na,91.67,30.1\nb,{},31.2\nc,50.00,30.5\n"


def test_only_some_percentages_of_n_items_exist(tmp_path, capsys):
    assert audited(tmp_path, ACCURACIES.format("83.33"), items=12) == []
    (finding,) = audited(tmp_path, ACCURACIES.format("91.50"), items=12)
    assert (finding.rule, finding.certainty) == ("grim", Certainty.CERTAIN)
    assert finding.follows == "10 of 12 is 83.33, 11 of 12 is 91.67"
    (cut,) = audited(tmp_path, ACCURACIES.format("91.66"), items=12)
    assert (cut.rule, cut.certainty) == ("grim", Certainty.LIKELY)
    assert audit.main([str(tmp_path / "board.csv"), "--items", "12", "--strict"]) == 1
    shown = capsys.readouterr().out
    assert "GRIM, shares of n items: applied to Acc\n" in shown
    assert "GRIM: not applied to AP: no share of counted items" in shown


def test_without_n_the_possible_ones_are_told(tmp_path):
    assert audited(tmp_path, ACCURACIES.format("83.33")) == []
    cells = rules.cells_of(tmp_path / "board.csv")
    assert "GRIM: Acc can be shares of n items, n below 10000: 12, 24, 36" in grim.told(cells)[-1]


def test_accuracies_of_pixels_and_of_several_runs_are_no_shares(tmp_path):
    pixels = "Method,Acc,mIoU\na,91.50,30.1\nb,90.00,31.2\n"
    runs = "Method,Acc\na,91.50 ± 0.3\nb,90.00 ± 0.2\n"
    for text in (pixels, runs):
        assert audited(tmp_path, text, items=12) == []


def test_bold_by_groups_and_of_an_unknown_direction(tmp_path):
    groups = "Method,AP\nSwin,\na,**40.1**\nb,39.0\nSAM,\na,35.0\nb,**36.1**\n"
    assert audited(tmp_path, groups) == []
    assert audited(tmp_path, "Method,Gap\na,2.4\nb,**1.3**\nc,3.1\n") == []


def test_a_weighted_mean_is_one_finding(tmp_path):
    (finding,) = audited(tmp_path, "M,A,B,Avg\na,10.0,20.0,12.0\nb,11.0,21.0,13.1\nc,8.0,30.0,12.1")
    assert (finding.rule, finding.certainty) == ("mean", Certainty.DEFINITION)

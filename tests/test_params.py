"""The verb `params`: counts of all settings of a sweep, compared with the published columns."""

import csv
import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from segsweep.base.config import compose, plain
from segsweep.base.errors import UserError
from segsweep.peft import printed as published
from segsweep.peft.sizes import Bases
from segsweep.sweeps.sweeper import configs
from segsweep.verbs import params

EVERY = published.read_printed(params.REPORTED)
COUNTED = [line for line in EVERY if line.verdict != "open"]
FOREIGN = ("TransLab", "Trans2Seg", "domain-specific models")  # networks that nobody has here
BY_DATA = ("loss", "mask_tokens")
SWEEPS = [  # on few of their data sets, but with all models
    (["+sweep=table2", "data=ndd20,cityscapes"], "000", "2b"),
    (["+sweep=convlora", "data=kvasir"], "003", "main"),
    (["+sweep=convlora", "data=trans10k"], "003", "multi-class (Trans10K-style)"),
]


def setting(config):
    """Model and method of a config as text, but what depends on the data and hardly counts."""
    return json.dumps([plain(config.model) | dict.fromkeys(BY_DATA), plain(config.peft)])


@cache
def config_of(words):
    """The config of a line's words, composed once."""
    return compose([*words])


@pytest.fixture(scope="module")
def counts():
    """What is counted of each line: by the readings of its model, the chosen one first."""
    bases = Bases()
    return {str(line): bases.counts(config_of(line.words), line.classes) for line in COUNTED}


@pytest.fixture
def reported(tmp_path):
    return Path(shutil.copytree(params.REPORTED, tmp_path / "reported"))


def change(path, select, **values):
    """Replace values in the lines of a data file for which `select` holds."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    chosen = [line for line in lines if select(line)]
    assert chosen
    for line in chosen:
        line.update(values)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def test_every_printed_number_of_parameters_has_a_line():
    with (params.REPORTED / "reported.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] not in FOREIGN]
    places = {"trainable_params": "params.trainable", "trainable_pct_eq10": "params.percent"}
    places |= {"trainable_ratio": "params.percent"}
    places |= {"updated_params_incl_neck_head": "params.trainable"}
    wanted = [
        (row["source"], row["table"], places[row["metric"]], row["value"])
        for row in rows
        if row["metric"] in places
    ]
    held = [
        (line.study, line.table, name, value)
        for line in EVERY
        for name, value in line.values.items()
    ]
    assert sorted(held) == sorted(wanted)
    assert {line.study: sum(line.study == other.study for other in EVERY) for line in EVERY} == {
        "000": 33, "002": 32, "003": 14,
    }  # fmt: skip


def test_every_printed_digit_is_computed_or_declared(counts):
    differences = [
        sentence
        for line in COUNTED
        for sentence in line.differences(next(iter(counts[str(line)].values())))
    ]
    assert differences == []
    assert sum(line.verdict == "declared" for line in EVERY) == 16
    assert all(line.reason for line in EVERY if line.verdict != "exact")


@pytest.mark.parametrize(("words", "study", "table"), SWEEPS)
def test_a_sweep_has_the_settings_of_its_table(words, study, table):
    lines = [line for line in EVERY if (line.study, line.table) == (study, table)]
    swept, alone = set(), {"kappa", "lambda"}  # Table A1, in the sweep of Table 2, prints no counts
    for _, config in configs(words):
        if plain(getattr(config.peft, "residual", None)) not in alone or study != "000":
            swept.add(setting(config))
    assert swept == {setting(config_of(line.words)) for line in lines}


def test_known_misprints_are_declared_with_the_same_count():
    with (params.REPORTED / "misprints.csv").open(newline="") as file:
        misprints = [row for row in csv.DictReader(file) if "params" in row["metric"]]
    for row in misprints:
        (line,) = (
            line
            for line in EVERY
            if (line.study, line.table) == (row["source"], row["table"])
            and line.values["params.trainable"] == row["value"]
            and published.to_digits_of(row["value"], float(row["correct"])) != row["value"]
            and line.trainable in (None, round(1e6 * float(row["correct"])))
        )
        assert line.verdict in ("declared", "open")


def test_parameters_of_seem(counts):
    """To the last one: by the formulas of the methods, and by the official checkpoint's layers."""
    embeddings, total = 1_050_112, 340_360_953
    trained, frozen = "text encoder trained", "text encoder frozen"
    expected = [
        {trained: (134_614_017, 0), frozen: (71_185_920, 0)},
        {trained: (102_420_481, 0), frozen: (38_992_384, 0)},
        dict.fromkeys((trained, frozen), (embeddings, 0)),
    ]
    for added in (*(3_161_088 * n for n in (1, 2, 3, 4)), *(49_152 * r for r in (2, 4, 8, 16))):
        expected.append(dict.fromkeys((trained, frozen), (embeddings + added, added)))
    found = [readings for line, readings in counts.items() if "model=seem_focall" in line]
    assert [{t: (c.trainable, c.added) for t, c in r.items()} for r in found] == expected
    assert all(c.total == total + c.added for r in found for c in r.values())


def test_the_text_encoder_that_is_chosen_comes_first(capsys):
    words = ["model=seem_tiny", "--classes", "3", "peft=full_head,embeddings_only"]
    assert params.main(words) == 0
    table = capsys.readouterr().out
    assert table.index("text encoder frozen") < table.index("text encoder trained")
    assert table.count("text encoder") == 2  # no matter to the embeddings
    assert params.main([*words, "model.text_encoder=trained"]) == 0
    table = capsys.readouterr().out
    assert table.index("text encoder trained") < table.index("text encoder frozen")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["000", "model=maskdino_r50", "peft.rank=8"], "params.trainable", "0.54"),
        (["000", "model=maskdino_r50", "peft.rank=8"], "params.percent", "1.03"),
        (["003", "data=kvasir", "peft=lora"], "params.trainable", "4.01"),
    ],
)
def test_a_changed_number_is_found(counts, words, name, value):
    (line,) = published.read_printed(params.REPORTED, words)
    here = next(iter(counts[str(line)].values()))
    (difference,) = replace(line, values={**line.values, name: value}).differences(here)
    assert difference.startswith(f"{line}: {name} is printed as {value}, computed ")
    (difference,) = replace(line, trainable=7).differences(here)
    assert "parameters train, its line has 7" in difference
    (difference,) = replace(line, verdict="declared").differences(here)
    assert "is declared to differ, and every digit is as printed" in difference


def test_check_exits_with_1_on_a_difference(reported, capsys):
    words = ["--check", "000", "model=maskdino_r50", "peft=full_head", "--reported", str(reported)]
    assert params.main(words) == 0
    assert (
        "000: 1 settings compared, 0 differences, 0 declared, 0 not yet" in capsys.readouterr().out
    )
    change(reported / "params_000.csv", lambda line: True, classes="80")
    assert params.main(words) == 1
    out = capsys.readouterr().out
    assert "peft=full_head: params.trainable is printed as 28.56, computed 28.60" in out
    assert "1 settings compared, 3 differences" in out


def test_what_is_open_is_counted_and_is_a_difference_once_it_could_be_checked(reported, capsys):
    words = ["--check", "002", "peft=fix", "--reported", str(reported)]
    opened = {"verdict": "open", "reason": "needs model=sam_x", "trainable": ""}
    path, fixed = reported / "params_002.csv", "peft=fix"
    change(path, lambda line: True, words=f"model=sam_x {fixed}", **opened)
    assert params.main([word for word in words if word != fixed]) == 0
    out = capsys.readouterr().out
    assert "32 not yet: needs model=sam_x" in out
    assert "002: 0 settings compared, 0 differences, 0 declared, 32 not yet" in out
    change(path, lambda line: True, words=f"model=sam_b {fixed}")
    assert params.main(words) == 1
    assert "002 1: model=sam_b peft=fix: is said to be open, but" in capsys.readouterr().out


def test_counts_of_any_setting_need_neither_weights_nor_data(capsys):
    words = [
        "-m",
        "model=maskdino_tiny",
        "data=coco",
        "peft=lora",
        "peft.rank=2,4",
        "--classes",
        "7",
    ]
    assert params.main(words) == 0
    table = capsys.readouterr().out
    assert table.count("maskdino_tiny") == 2
    assert "rank=2" in table
    assert "rank=4" in table


def test_the_number_of_classes_is_the_data_sets(capsys):
    assert params.main(["data=digits", "data.domain=street", "peft=embeddings_only"]) == 0
    eight = capsys.readouterr().out
    assert params.main(["data=digits", "peft=embeddings_only", "--classes", "8"]) == 0
    assert capsys.readouterr().out == eight


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"names.csv does not exist: --reported DIR"):
        params.main(["--check", "--reported", str(tmp_path)])
    with pytest.raises(UserError, match=r"data.root.*--classes N"):
        params.main(["data=coco"])
    with pytest.raises(UserError, match=r"--check 004: .*choices: 000, 002, 003"):
        params.main(["--check", "004"])
    with pytest.raises(UserError, match="--check 000 peft=frozen: no published setting"):
        params.main(["--check", "000", "peft=frozen"])
    with pytest.raises(UserError, match="peft=loar: there is no peft 'loar'; did you mean 'lora'"):
        params.main(["peft=loar"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("verdict", "maybe", "verdict 'maybe' is none of exact"),
        ("table", "9", "nothing is printed"),
    ],
)
def test_a_line_that_cannot_be_is_named(reported, key, value, said):
    change(reported / "params_003.csv", lambda line: line["method"] == "vpt", **{key: value})
    with pytest.raises(UserError, match=rf"params_003.csv: line 6: {said}"):
        published.read_printed(reported)

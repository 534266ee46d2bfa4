"""The verb `params`: counts of all settings of a sweep, compared with the published table."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segsweep.base.errors import UserError
from segsweep.peft import printed as printed_table
from segsweep.peft.sizes import sizes
from segsweep.sweeps.sweeper import configs
from segsweep.verbs import params


@pytest.fixture(scope="module")
def printed():
    return printed_table.read_printed(params.REPORTED)


@pytest.fixture(scope="module")
def rows(printed):
    def classes(config):
        return next(line.classes for line in printed if line.means(config))

    return sizes(configs(params.TABLE), classes)


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


def test_every_printed_digit_of_table_2b_is_computed(rows, printed):
    assert len(printed) == 33
    assert len(rows) == len(printed) + 2  # the text encoder of SEEM, a part of two rows or not
    assert all(line.values.keys() == printed_table.METRICS.keys() for line in printed)
    assert printed_table.check(rows, printed) == []


def test_parameters_of_seem(rows):
    """To the last one: by the formulas of the methods, and by the official checkpoint's layers."""
    embeddings, total = 1_050_112, 340_360_953
    expected = [
        ("full_head", "text encoder trained", 134_614_017, 0),
        ("full_head", "text encoder frozen", 71_185_920, 0),
        ("decoder_only", "text encoder trained", 102_420_481, 0),
        ("decoder_only", "text encoder frozen", 38_992_384, 0),
        ("embeddings_only", "", embeddings, 0),
    ]
    for repeats in (1, 2, 3, 4):
        added = 3_161_088 * repeats
        expected.append(("adapter", f"repeats={repeats}", embeddings + added, added))
    for rank in (2, 4, 8, 16):
        added = 49_152 * rank
        expected.append(("lora", f"rank={rank}", embeddings + added, added))
    found = [row for row in rows if row.model == "seem_focall"]
    assert [(r.peft, r.label, r.counts.trainable, r.counts.added) for r in found] == expected
    assert all(row.counts.total == total + row.counts.added for row in found)


def test_the_text_encoder_that_is_chosen_comes_first(capsys):
    words = ["model=seem_tiny", "--classes", "3", "peft=full_head,embeddings_only"]
    assert params.main(words) == 0
    table = capsys.readouterr().out
    assert table.index("text encoder frozen") < table.index("text encoder trained")
    assert table.count("text encoder") == 2  # no matter to the embeddings
    assert params.main([*words, "model.text_encoder=trained"]) == 0
    table = capsys.readouterr().out
    assert table.index("text encoder trained") < table.index("text encoder frozen")


def test_the_only_misprint_is_declared(rows, printed):
    declared = {str(line): line.misprints for line in printed if line.misprints}
    pair = {"trainable_params": ("1.12", "1.13")}
    assert declared == {"maskdino_swinl adapter repeats=1 residual=kappa+lambda": pair}


@pytest.mark.parametrize(
    ("metric", "value"), [("trainable_params", "0.54"), ("trainable_pct_eq10", "1.02")]
)
def test_a_changed_number_is_found(rows, reported, metric, value):
    def select(line):
        words = line["backbone"], line["method_params"], line["metric"]
        return words == ("ResNet-50", '{"alpha": 8, "r": 8}', metric)

    change(reported / "reported.csv", select, value=value)
    (difference,) = printed_table.check(rows, printed_table.read_printed(reported))
    assert difference.startswith(
        f"maskdino_r50 lora rank=8 alpha=8: {metric} is printed as {value}"
    )


def test_a_misprint_that_is_none_is_found(rows, reported):
    change(reported / "misprints.csv", lambda line: True, correct="1.14")
    (difference,) = printed_table.check(rows, printed_table.read_printed(reported))
    assert "is printed as 1.12, computed 1.13" in difference


def test_a_setting_that_was_not_computed_is_found(rows, printed):
    kept = [row for row in rows if row.peft != "decoder_only"]
    differences = printed_table.check(kept, printed)
    assert len(differences) == 3
    assert all("decoder_only" in d and d.endswith("not among the settings") for d in differences)


def test_check_exits_with_1_on_a_difference(reported, capsys):
    table = reported / "table2b.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    words = [params.SWEEP, "model=maskdino_r50", "peft=full_head", "--check"]
    words += ["--reported", str(reported)]
    assert params.main(words) == 0
    assert "1 settings compared, 0 differences" in capsys.readouterr().out
    change(table, lambda line: True, classes="80")
    command = [sys.executable, "-m", "segsweep", "params", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "maskdino_r50 full_head: trainable_params is printed as 28.56" in done.stdout
    assert "computed 28.60" in done.stdout


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
    with pytest.raises(UserError, match=r"reported.csv does not exist: --reported DIR"):
        params.main(["--check", "--reported", str(tmp_path)])
    with pytest.raises(UserError, match=r"data.root.*--classes N"):
        params.main(["data=coco"])
    with pytest.raises(UserError, match="peft=frozen has a setting outside table 2b"):
        params.main(["peft=frozen", "--check"])
    with pytest.raises(UserError, match="peft=loar: there is no peft 'loar'; did you mean 'lora'"):
        params.main(["peft=loar"])

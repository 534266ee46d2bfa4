"""Text of other people is text: no formula, no command to a terminal, no tag, no link."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.csv_files import as_csv
from segsweep.base.shell import markdown_text
from segsweep.base.terminal import UNSEEN, printable
from segsweep.check.fix import link
from segsweep.results import frame, tables, typeset
from segsweep.run.identity import Run
from segsweep.verbs import logs, report, status, table
from tests.records import record, write

CONTROLS = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m \x9b31m \u202egnp.exe\u2066 \x08\r\nlast"
NASTY = "=1+1<script>alert(1)</script>|`x`![p](http://a.b/c.png)\n\\input{x}$&" + CONTROLS
FORMULAS = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3+cmd()", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
NUMBERS = ["-1.2", "+3", "-0.30 ± 0.12 (3)", "-1e-05", "-", "±5", "-1,234.5 %"]


def test_no_cell_is_a_formula_and_numbers_stay_numbers() -> None:
    text = as_csv([FORMULAS, NUMBERS, [-1.2, 3, None, True]])
    rows = list(csv.reader(io.StringIO(text)))
    said = [f"'{text}".replace("\r", " ") for text in FORMULAS]
    assert rows == [said, NUMBERS, ["-1.2", "3", "", "True"]]


def results(folder: Path) -> Path:
    """Runs whose data set, class and method are called what somebody thought of."""
    first, second = record("lora", 41.0, rank=4), record("adapter", -1.5)
    for one in (first, second):
        one["config"]["data"]["label"] = NASTY
        one["data"]["classes"] = [NASTY]
        one["git"]["commit"] = NASTY
    first["config"]["peft"]["label"] = f"@{NASTY}"
    write(folder, first, second)
    return folder


def test_tables_of_foreign_labels_say_them_and_do_nothing(tmp_path: Path) -> None:
    runs = frame.read(results(tmp_path))
    texts = {
        path.suffix: text
        for path, text in typeset.texts(tables.ablation(runs.runs), tmp_path / "ablation").items()
    }
    texts[".runs"] = runs.csv_text()
    for ending, text in texts.items():
        assert not UNSEEN.search(text), ending
    for text in (texts[".csv"], texts[".runs"]):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert any("1+1<script>" in cell for cell in cells)
        assert not [cell for cell in cells if cell[:1] in ("=", "@", "\t", "\r")]
        assert "-1.5" in cells
    assert not re.search(r"(?<!\\)[<`]|\]\(", texts[".md"])
    assert "<script>alert" not in texts[".html"]
    assert "\\input" not in texts[".tex"]
    page = [line for line in texts[".md"].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in page}) == 1  # no cell too many


def test_terminals_and_pages_obey_no_record(tmp_path: Path, capsys) -> None:
    words = ["--results", str(results(tmp_path))]
    assert table.main(["ablation", "--trace", *words]) == 0
    assert report.main([*words, "--no-pictures"]) == 0
    assert not UNSEEN.search(capsys.readouterr().out)
    assert "<script>alert" not in (tmp_path / "report.html").read_text()


def test_what_a_run_said_commands_no_terminal(tmp_path: Path, capsys) -> None:
    run = Run(compose([f"io.results={tmp_path}"]))
    with run.owning():
        run.prepare()
        try:
            raise RuntimeError(CONTROLS)
        except RuntimeError as error:
            run.publish_failure(run.head(), error)
    (run.directory / "log.txt").write_text(CONTROLS, encoding="utf-8", newline="")
    capsys.readouterr()
    for verb in (["status"], ["status", "--json"], ["logs", run.name]):
        main = {"status": status, "logs": logs}[verb[0]].main
        assert main([*verb[1:], "--results", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "red" in said
        assert not UNSEEN.search(said), verb


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\r\nb\rc", "a\nb\nc"), ("\x1b[1;31mx\x1b[m", "x"), ("\x1b]8;;u\x1b\\x", "x"), ("µ±",) * 2],
)  # fmt: skip
def test_letters_stay_and_commands_go(text: str, said: str) -> None:
    assert printable(text) == said


def test_markdown_keeps_what_does_nothing() -> None:
    assert markdown_text("0.1, [0.2] (x) *") == "0.1, [0.2] (x) *"


def test_a_clean_copy_holds_what_a_link_led_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(b"pixels")
    (tmp_path / "picture.png").symlink_to("elsewhere.png")
    link(tmp_path / "picture.png", tmp_path / "copy.png")
    link(tmp_path / "elsewhere.png", tmp_path / "same.png")
    assert not (tmp_path / "copy.png").is_symlink()
    (tmp_path / "elsewhere.png").write_bytes(b"others")
    assert (tmp_path / "copy.png").read_bytes() == b"pixels"
    assert (tmp_path / "same.png").samefile(tmp_path / "elsewhere.png")

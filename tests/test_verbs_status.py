"""Sweeps by name, long lists, estimates and watching: what `status` adds to states."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.errors import UserError
from segsweep.base.files import write_json
from segsweep.base.owner import owned
from segsweep.base.terminal import duration, human
from segsweep.sweeps.names import chosen, members, remember, settings, sweeps
from segsweep.sweeps.status import lines, status
from segsweep.verbs.status import main
from tests.records import record, write
from tests.runs import left_owner


def begun(results: Path, name: str, *times: float, epochs: int = 10) -> Path:
    """Make the directory of a run with a line of its curve for each epoch: when it was written."""
    directory = results / "runs" / name
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(f"hparams:\n  epochs: {epochs}\n")
    curve = [{"step": i, "epoch": i, "time": t, "lr": 1e-3} for i, t in enumerate(times, 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in curve))
    return directory


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_a_sweep_grows_by_every_launch_and_keeps_its_order(tmp_path: Path) -> None:
    remember(tmp_path, "ranks", {"b": ["r=1"], "a": ["r=2"]})
    remember(tmp_path, "ranks", {"c": ["r=3"], "b": ["r=1"]})
    assert [run.name for run in chosen(tmp_path, ["ranks"])] == ["b", "a", "c"]
    assert sweeps(tmp_path) == ["ranks"]


def test_a_launch_that_adds_nothing_writes_nothing(tmp_path: Path) -> None:
    earlier = tmp_path / "sweeps" / "ranks.json"  # as earlier versions wrote it
    earlier.parent.mkdir()
    write_json(earlier, {"name": "ranks", "runs": {"z": "r=9"}})
    remember(tmp_path, "ranks", {"b": ["r=1"], "z": ["r=9"]})
    (launch,) = (tmp_path / "sweeps" / "ranks").iterdir()
    remember(tmp_path, "ranks", {"b": ["x=1"], "z": []})
    assert list((tmp_path / "sweeps" / "ranks").iterdir()) == [launch]
    assert members(tmp_path, "ranks") == {"z": "r=9", "b": "r=1"}
    assert settings(tmp_path) == members(tmp_path, "ranks")
    assert sweeps(tmp_path) == ["ranks"]


def test_launches_at_the_same_time_keep_all_their_runs(tmp_path: Path) -> None:
    """Each in a process of its own, all begun before the first one writes."""
    together = multiprocessing.get_context("fork")
    gate = together.Barrier(100)

    def launch(number: int) -> None:
        gate.wait(60)
        remember(tmp_path, "wide", {f"run-{number}": [f"seed={number}"]})

    launches = [together.Process(target=launch, args=(number,)) for number in range(100)]
    for process in launches:
        process.start()
    for process in launches:
        process.join(60)
    assert {*members(tmp_path, "wide")} == {f"run-{number}" for number in range(100)}


@pytest.mark.parametrize("content", [
    {"runs": {"../../..": ""}}, {"runs": {".submit": ""}}, {"runs": {"a/b": ""}}, {"runs": ["a"]},
    {"runs": {"a": 1}}, ["a"], {},
])  # fmt: skip
def test_a_sweep_leads_nowhere_else(tmp_path: Path, capsys, content: Any) -> None:
    (directory,) = write(tmp_path, record("lora", 41.5))
    for path in ("sweeps/evil.json", "sweeps/evil/1.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / path, content)
        with pytest.raises(UserError, match=rf"{path}: .*; delete"):
            chosen(tmp_path, ["evil"])
        assert directory.name in shown(capsys, "--results", str(tmp_path))  # others are shown
        (tmp_path / path).unlink()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b"])
def test_a_sweep_has_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"io\.sweep"):
        remember(tmp_path, name, {"a": []})


def test_words_name_sweeps_runs_ids_and_folders(tmp_path: Path) -> None:
    directory, other = write(tmp_path, record("lora", 41.5), record("adapter", 40.0))
    key = directory.name.rpartition("-")[2]
    remember(tmp_path, "ranks", {directory.name: [], "not-begun": []})
    assert chosen(tmp_path, []) == sorted([directory, other])
    assert chosen(tmp_path, ["ranks"]) == [directory, tmp_path / "runs" / "not-begun"]
    assert chosen(tmp_path, [directory.name]) == chosen(tmp_path, [key[:6]]) == [directory]
    assert chosen(tmp_path, ["ranks", key]) == [directory, tmp_path / "runs" / "not-begun"]
    assert chosen(tmp_path / "elsewhere", [str(tmp_path)]) == sorted([directory, other])
    (other / "config.yaml").write_text("")
    assert chosen(tmp_path / "elsewhere", [str(other)]) == [other]


def test_a_word_that_names_nothing_is_refused_with_the_nearest(tmp_path: Path) -> None:
    remember(tmp_path, "table2", {"a": []})
    with pytest.raises(UserError, match=r"tabel2: .*did you mean 'table2'.*sweeps: table2"):
        chosen(tmp_path, ["tabel2"])


def test_the_beginning_of_several_ids_is_refused(tmp_path: Path) -> None:
    for name in ("m-p-d-12ab", "m-p-d-12cd"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="several runs"):
        chosen(tmp_path, ["12"])


def test_folders_of_the_launcher_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".submit").mkdir(parents=True)
    assert chosen(tmp_path, []) == []


def test_runs_of_a_sweep_that_have_not_begun_are_named(tmp_path: Path, capsys) -> None:
    (directory,) = write(tmp_path, record("lora", 41.5))
    words = ["io.sweep=ranks", "+sweep=ranks", "peft=lora"]
    remember(tmp_path, "ranks", {directory.name: [*words, "rank=2"], "later": [*words, "rank=4"]})
    write(tmp_path, record("adapter", 1.0))  # of no sweep
    out = shown(capsys, "ranks", "--results", str(tmp_path))
    assert "2 runs: 1 done, 1 new" in out
    assert f"done  {directory.name}  best epoch 9 of 10  segm_AP 41.50  rank=2\n" in out
    assert "later" in out
    assert "rank=4" in out
    assert "peft=lora" not in out  # all have it
    assert "adapter" not in out
    assert "1 to go; finished runs took 1 min" in out  # as long as the finished one took


def test_the_end_of_a_running_run_follows_from_its_own_pace(tmp_path: Path) -> None:
    directory = begun(tmp_path, "a")
    with owned(directory):
        now = time.time()
        lines_ = [now - 1e6, now + 1, now + 61, now + 121]  # the first one is of a run before
        curve = [{"step": i, "epoch": i, "time": t, "lr": 1.0} for i, t in enumerate(lines_, 1)]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in curve))
        found = status(directory)
    assert found.ends == pytest.approx(now + 121 + 6 * 60, abs=1)


def test_a_run_that_says_nothing_for_long_is_pointed_out(tmp_path: Path) -> None:
    directory = begun(tmp_path, "a")
    old = time.time() - 7200
    left_owner(directory, started=old - 9)
    curve = [{"step": i, "epoch": i, "time": old + i, "lr": 1.0} for i in (1, 2)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in curve))
    found = status(directory)
    assert found.note.endswith("silent for 2 h 00 min")


def test_long_lists_are_summed_up_with_what_needs_a_look_first(tmp_path: Path, capsys) -> None:
    for number in range(60):
        begun(tmp_path, f"run{number:02}", 1.0)
    write(tmp_path, record("lora", None))
    words = "--results", str(tmp_path)
    text = shown(capsys, *words).splitlines()
    assert text[0].startswith("failed")
    assert "CUDA out of memory" in text[0]
    assert "... 52 more interrupted (--state interrupted shows them)" in text
    assert text[-1] == "61 runs: 60 interrupted, 1 failed"
    assert len(text) == 1 + 8 + 2
    assert len(shown(capsys, *words, "--all").splitlines()) == 62
    assert len(shown(capsys, *words, "--state", "interrupted").splitlines()) == 61
    assert shown(capsys, *words, "--state", "done").startswith("0 runs")


def test_watching_ends_when_all_is_over(tmp_path: Path, capsys) -> None:
    write(tmp_path, record("lora", 41.5))
    assert "1 done" in shown(capsys, "--results", str(tmp_path), "--watch", "0.1")


def test_watching_sees_a_run_end(tmp_path: Path) -> None:
    directory = begun(tmp_path, "a", 1.0)
    command = [sys.executable, "-m", "segsweep", "status", "--results", str(tmp_path)]
    with owned(directory):
        process = subprocess.Popen([*command, "--watch", "0.2"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while "again every" not in (line := process.stdout.readline()):
            assert line
    out, _ = process.communicate(timeout=60)
    assert "1 interrupted" in out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (12, "12 s"), (90, "2 min"), (3900, "1 h 05 min"), (93600, "1 d 02 h")],
)
def test_durations_are_said_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2.0**50, "1024.0 TiB")]
)
def test_sizes_are_said_in_the_unit_that_suits_them(size: float, text: str) -> None:
    assert human(size) == text


def test_a_thousand_runs_take_less_than_a_second(tmp_path: Path) -> None:
    """Measured 0.15 s of the processor; the limit leaves room for a slow file system."""
    runs = [record("lora", 40.0, seed=seed) for seed in range(500)]
    write(tmp_path, *runs)
    for number in range(500):
        begun(tmp_path, f"run{number}", *range(100))
    begin = time.process_time()
    found = [status(run) for run in chosen(tmp_path, [])]
    assert "1000 runs: 500 done, 500 interrupted" in list(lines(found))
    assert time.process_time() - begin < 1.0

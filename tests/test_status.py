"""States and progress are computed from the files of a run directory, whatever they hold."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from segsweep.base.owner import owned
from segsweep.base.process import process_started
from segsweep.sweeps.names import directories
from segsweep.sweeps.status import TAILS, Status, status
from segsweep.verbs.status import main
from tests.records import record, write

CONFIG = """model:
  name: maskdino_tiny
  epochs: 99
hparams:
  _target_: segsweep.base.config.Hparams
  name: default
  milestones:
  - 0.9
  epochs: 10
trainer:
  name: default
"""
VERB = """
import atexit, sys
heavy = {"torch", "timm", "pytorch_lightning", "scipy"}
atexit.register(lambda: print("heavy:", heavy & set(sys.modules)))
from segsweep.__main__ import main
main()
"""
OWNER = {"host": socket.gethostname(), "pid": os.getpid()}


def run(results: Path, name: str, *lines: dict) -> Path:
    """Make the directory of a run that has begun, with the lines of its curve."""
    directory = results / "runs" / name
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(CONFIG)
    if lines:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / "metrics.jsonl").write_text(text)
    return directory


def trained(step: int) -> dict:
    return {"step": step, "epoch": step / 4, "time": 1.0, "lr": 1e-3, "loss": 9.0}


def validated(step: int, ap: float) -> dict:
    return {"step": step, "epoch": step / 4, "time": 1.0, "segm_AP": ap, "bbox_AP": 1.0}


def test_finished_runs_show_their_metric_and_best_epoch(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, record("lora", 41.5))
    name = directory.name
    assert status(directory) == Status(name, "done", 9, 10, 160, "segm_AP", 41.5)


def test_runs_of_a_live_process_are_running(tmp_path: Path) -> None:
    directory = run(tmp_path, "a", validated(4, 12.5), trained(6))
    with owned(directory):
        status_now = status(directory)
    note = f"process {os.getpid()} on {socket.gethostname()}"
    assert status_now == Status("a", "running", 1.5, 10, 6, "segm_AP", 12.5, note)


@pytest.mark.parametrize("pid", [2**22 + 1, os.getpid()], ids=["gone", "number used again"])
def test_runs_of_a_dead_process_are_interrupted(tmp_path: Path, pid: int) -> None:
    directory = run(tmp_path, "a", trained(1))
    started = f"{process_started(os.getpid())}0"
    owner = OWNER | {"pid": pid, "started_ticks": started, "started": 0.0}
    (directory / "owner").write_text(json.dumps(owner))
    assert status(directory).state == "interrupted"


def test_failed_runs_show_the_error_and_how_far_they_came(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, record("lora", None))
    (directory / "config.yaml").write_text(CONFIG)
    (directory / "metrics.jsonl").write_text(json.dumps(trained(3)) + "\n")
    status_now = status(directory)
    assert (status_now.state, status_now.epoch, status_now.epochs) == ("failed", 0.75, 10)
    assert status_now.note == "OutOfMemoryError: CUDA out of memory"


def test_a_directory_without_files_is_new(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert status(tmp_path / "runs" / "a") == Status("a", "new")


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    directory = run(tmp_path, "a", trained(1), trained(2))
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epo')
    assert status(directory).step == 2


def test_the_metric_is_found_behind_many_lines_of_training(tmp_path: Path) -> None:
    many = [trained(step) for step in range(5, 1000)]
    directory = run(tmp_path, "a", validated(4, 30.0), *many)
    assert (directory / "metrics.jsonl").stat().st_size > TAILS[0]
    assert (status(directory).value, status(directory).step) == (30.0, 999)


def test_long_curves_are_not_read_whole(tmp_path: Path) -> None:
    directory = run(tmp_path, "a", validated(4, 30.0), trained(5))
    with (directory / "metrics.jsonl").open("rb+") as file:
        last = file.read()
        file.truncate(0)
        file.seek(1 << 34)  # 16 GiB of nothing, of which a file system stores nothing
        file.write(b"\n" + last)
    assert (status(directory).value, status(directory).step) == (30.0, 5)


def test_unreadable_files_do_not_hide_the_other_runs(tmp_path: Path, capsys) -> None:
    write(tmp_path, record("lora", 41.5))
    (run(tmp_path, "torn") / "record.json").write_text("{")
    assert main(["--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "unreadable" in out
    assert "2 runs: 1 done, 1 unreadable" in out


def test_json_holds_every_run(tmp_path: Path, capsys) -> None:
    write(tmp_path, record("lora", 41.5))
    run(tmp_path, "begun", trained(2))
    assert main(["--results", str(tmp_path), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    expected = asdict(Status("begun", "interrupted", epoch=0.5, epochs=10, step=2))
    assert rows["begun"] == expected
    assert len(rows) == 2


def test_no_runs_yet_is_no_error(tmp_path: Path, capsys) -> None:
    assert main(["--results", str(tmp_path)]) == 0
    assert "No runs" in capsys.readouterr().out
    assert directories(tmp_path) == []


@pytest.mark.parametrize("verb", ["status", "collect"])
def test_verbs_over_files_import_no_torch(tmp_path: Path, verb: str) -> None:
    write(tmp_path, record("lora", 41.5))
    done = subprocess.run(
        [sys.executable, "-c", VERB, verb, "--results", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "segm_AP" in done.stdout or "COCO mask AP" in done.stdout
    assert done.stdout.endswith("heavy: set()\n")

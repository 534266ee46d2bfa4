"""`cancel` and `retry` where there is no SLURM: processes of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.owner import Busy, owned
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps.control import is_segsweep, reopened
from segsweep.sweeps.names import remember
from segsweep.verbs import cancel, retry
from tests.runs import contents, left_owner

SHORT = ["data.train=4", "data.val=2", "hparams.epochs=1", "trainer.accelerator=cpu"]
TRAINS = """
import sys, time
from pathlib import Path
from segsweep.base.owner import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def run(results: Path, *words: str, failed: bool = True) -> Run:
    """Make the directory of a run that failed."""
    made = Run(compose([f"io.results={results}", *SHORT, *words]))
    made.directory.mkdir(parents=True)
    made.prepare()
    if failed:
        error = {"type": "OSError", "message": "no", "traceback": "T"}
        text = json.dumps({"status": "failed", "error": error})
        (made.directory / "failed.json").write_text(text)
    return made


def begin(directory: Path) -> subprocess.Popen[str]:
    """Start a process that owns a directory as one that trains does."""
    command = [sys.executable, "-c", TRAINS, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


@pytest.mark.parametrize("verb", [cancel, retry])
def test_what_changes_things_needs_a_name_or_all(tmp_path: Path, verb: Any) -> None:
    with pytest.raises(UserError, match="--all"):
        verb.main(["--results", str(tmp_path)])
    assert verb.main(["--results", str(tmp_path), "--all"]) == 0


def test_cancel_tells_the_process_of_a_run_and_no_other(tmp_path: Path, capsys) -> None:
    first_run, second_run = run(tmp_path, "seed=1").directory, run(tmp_path, "seed=2").directory
    first, second = begin(first_run), begin(second_run)
    try:
        assert cancel.main([first_run.name, "--results", str(tmp_path)]) == 0
        assert first.wait(timeout=30) == -signal.SIGTERM
        assert second.poll() is None
        assert "1 runs, 1 of them live: 0 jobs cancelled, 1 processes" in capsys.readouterr().out
        remember(tmp_path, "both", {first_run.name: [], second_run.name: []})
        assert cancel.main(["both", "--results", str(tmp_path)]) == 0
        assert second.wait(timeout=30) == -signal.SIGTERM
    finally:
        first.kill()
        second.kill()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-u", "-m", "segsweep", "-m", "peft=lora"], True),
        (["/opt/segsweep/.venv/bin/python", "/opt/bin/segsweep", "-m"], True),
        (["/usr/bin/segsweep", "retry", "--all"], True),
        (["python", "-u", "-m", "segsweep.sweeps.warm", "5"], True),  # what forks runs
        (["/opt/segsweep/.venv/bin/python", "-m", "pytest"], False),
        (["bash", "/opt/segsweep/all.sh"], False),
    ],
)
def test_a_folder_called_segsweep_makes_no_command_of_it(command: list[str], expected) -> None:
    assert is_segsweep(command) == expected


def test_a_number_that_another_process_has_now_is_not_told(tmp_path: Path) -> None:
    directory = run(tmp_path).directory
    left_owner(directory, started_ticks="1")
    assert cancel.main([directory.name, "--results", str(tmp_path)]) == 0  # and we live


def test_a_process_of_another_machine_is_named(tmp_path: Path, capsys) -> None:
    directory = run(tmp_path).directory
    left_owner(directory, host="elsewhere", pid=1)
    assert cancel.main([directory.name, "--results", str(tmp_path)]) == 1
    assert "process 1 on elsewhere; cancel it there" in capsys.readouterr().out


def test_a_changed_config_is_not_trained_under_the_old_name(tmp_path: Path, capsys) -> None:
    failed_run = run(tmp_path)
    config = failed_run.directory / "config.yaml"
    config.write_text(config.read_text().replace("train: 4", "train: 5"))
    assert retry.main([failed_run.name, "--results", str(tmp_path)]) == 1
    assert "names the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"), [("wrkers=2", "wrkers.*workers"), ("workers=two", "workers.*two")]
)
def test_wrong_options_of_a_launcher_are_refused(tmp_path: Path, change: str, said: str) -> None:
    failed_run = run(tmp_path)
    with pytest.raises(UserError, match=f"--with: (?s:.*){said}"):
        retry.main([failed_run.name, "--results", str(tmp_path), "--with", change])
    assert state_of(failed_run.directory) is State.FAILED


def test_a_run_that_begins_anew_keeps_its_config_only(tmp_path: Path) -> None:
    failed_run = run(tmp_path)
    for name in ("last.ckpt", "metrics.jsonl", "delta.safetensors"):
        (failed_run.directory / name).write_text("old")
    assert reopened(failed_run.directory, anew=False).name == failed_run.name
    assert (failed_run.directory / "last.ckpt").exists()
    anew = reopened(failed_run.directory, anew=True)
    with owned(failed_run.directory), pytest.raises(Busy):
        anew.prepare()
    assert (failed_run.directory / "last.ckpt").exists()  # its owner may be writing it
    anew.prepare()
    assert list(contents(failed_run.directory)) == ["config.yaml"]


def test_only_the_asked_states_are_started_again(tmp_path: Path, capsys) -> None:
    run(tmp_path, "seed=1")
    (tmp_path / "runs" / "not-frozen").mkdir()
    assert retry.main(["--all", "--results", str(tmp_path), "--state", "lost"]) == 0
    assert "2 runs, 0 of them to start again" in capsys.readouterr().out


@pytest.mark.slow
def test_what_failed_or_never_began_is_trained_from_its_frozen_config(tmp_path: Path) -> None:
    runs = [run(tmp_path, "seed=1"), run(tmp_path, "seed=2", failed=False)]
    command = [sys.executable, "-m", "segsweep", "retry", "--all", "--results", str(tmp_path)]
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for retried in runs:
        record = json.loads((retried.directory / "record.json").read_text())
        assert record["id"] == retried.id
        assert (retried.directory / "log.txt").stat().st_mtime > begun


@pytest.mark.slow
def test_a_sweep_that_trains_here_is_cancelled_with_its_command(tmp_path: Path) -> None:
    words = ["data.train=4", "data.val=2", "hparams.epochs=999", "trainer.accelerator=cpu"]
    launcher = ["hydra/launcher=local", "hydra.launcher.workers=1", "io.save_every=1"]
    command = [
        sys.executable,
        "-m",
        "segsweep",
        "-m",
        *launcher,
        *words,
        "seed=1,2",
        "io.sweep=two",
    ]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 300
        while not (checkpoints := list(tmp_path.glob("results/runs/*/last.ckpt"))):
            assert time.monotonic() < end
            time.sleep(0.3)
        assert cancel.main(["two", "--results", str(tmp_path / "results")]) == 0
        sweep.communicate(timeout=120)
    finally:
        sweep.kill()
    assert sweep.returncode == 128 + signal.SIGTERM
    states = {path.parent.name: state_of(path.parent) for path in checkpoints}
    assert list(states.values()) == [State.INTERRUPTED]
    assert checkpoints[0].exists()

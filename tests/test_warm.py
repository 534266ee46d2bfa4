"""Runs that are forked from one process: they end alone, and as any process does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.process import process_started
from segsweep.run.identity import Run
from segsweep.sweeps import pull
from segsweep.sweeps.warm import Forked, Starter
from tests.slurm.counted import PYTHON


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One whose server imports nothing, and whose runs sleep for a minute."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("COUNTED_SECONDS", "60")
    with Starter(threads=1) as started:
        yield started


@pytest.fixture
def sleeper(tmp_path: Path) -> list[str]:
    """The words of a run that sleeps."""
    words = [f"io.results={tmp_path / 'results'}", "peft=frozen", "model.weights=null"]
    run = Run(compose(words))
    pull.freeze([(words, run)], "demo")
    return ["work", str(run.directory)]


def status(process: Forked | subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert process.returncode is not None
    return process.returncode


def begun(words: list[str]) -> None:
    """Wait until a run sleeps."""
    end = time.monotonic() + 60
    while not (Path(words[1]) / "marks").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_forked_has_its_own_words_environment_log_and_status(starter, tmp_path) -> None:
    (tmp_path / "mine/peft").mkdir(parents=True)
    (tmp_path / "mine/peft/of_mine.yaml").write_text("name: of_mine\n")
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    first = starter.start(["--help"], {"SEGSWEEP_CONFIG_DIR": str(tmp_path / "mine")}, log)
    assert isinstance(first, Forked)
    assert status(first) == 0
    assert log.read_text().startswith("before\n")
    assert "of_mine" in log.read_text()
    second = starter.start(["nonsense"], {}, tmp_path / "other.txt")
    assert status(second) == 2
    assert "there is no verb" in (tmp_path / "other.txt").read_text()
    third = starter.start(["--help"], {}, tmp_path / "third.txt")
    assert status(third) == 0
    assert "of_mine" not in (tmp_path / "third.txt").read_text()
    assert [first.returncode, second.returncode] == [0, 2]


def test_a_run_that_is_killed_takes_no_other_with_it(starter, sleeper, tmp_path) -> None:
    run = starter.start(sleeper, {}, tmp_path / "log.txt")
    begun(sleeper)
    assert os.getsid(run.pid) == run.pid  # Ctrl-C in a terminal does not reach it
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    assert status(run) == -signal.SIGKILL
    assert status(starter.start(["--version"], {}, tmp_path / "log.txt")) == 0


def test_a_run_that_is_told_to_stop_stops(starter, sleeper, tmp_path) -> None:
    run = starter.start(sleeper, {}, tmp_path / "log.txt")
    begun(sleeper)
    run.send_signal(signal.SIGTERM)
    assert status(run) == 128 + signal.SIGTERM
    assert "interrupted" in (tmp_path / "log.txt").read_text()


def test_without_the_server_runs_go_on_and_others_are_whole_processes(
    starter, sleeper, tmp_path
) -> None:
    run = starter.start(sleeper, {}, tmp_path / "log.txt")
    begun(sleeper)
    starter.server.kill()
    later = starter.start(["--version"], {}, tmp_path / "later.txt")
    assert isinstance(later, subprocess.Popen)
    assert status(later) == 0
    assert run.poll() is None
    os.kill(run.pid, signal.SIGKILL)
    assert status(run) == 1  # nobody can tell


def test_the_server_leaves_with_its_launcher_and_runs_go_on(starter, sleeper, tmp_path) -> None:
    run = starter.start(sleeper, {}, tmp_path / "log.txt")
    begun(sleeper)
    server = starter.server
    starter.channel.close()  # as by a launcher that dies
    assert server.wait(timeout=30) == 0
    assert process_started(run.pid)
    os.kill(run.pid, signal.SIGKILL)

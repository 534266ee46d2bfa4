"""Identity, files, computed state, and running exactly once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segsweep.base.config import Choice, Config, Hparams, Trainer, fingerprint, neutral, outside
from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_atomically, write_json
from segsweep.base.owner import owned, owner_of
from segsweep.base.signals import Stopped
from segsweep.run.identity import Run, State, state_of


@dataclass
class Word(Choice):
    size: int = 1
    where: str = outside("here")
    later: int = neutral(0)


@dataclass
class Data(Word):
    content: str = outside("bytes")

    def fingerprint(self) -> str:
        return self.content


@dataclass
class Loose(Config):
    model: Word = field(default_factory=lambda: Word("m"))
    peft: Word = field(default_factory=lambda: Word("p"))
    data: Data = field(default_factory=lambda: Data("d"))
    metrics: Word = field(default_factory=lambda: Word("c"))
    logger: Word = field(default_factory=lambda: Word("none"), metadata={"outside": True})
    hparams: Hparams = field(default_factory=lambda: Hparams("default", lr=1e-3))
    trainer: Trainer = field(default_factory=lambda: Trainer("default"))


@pytest.fixture
def config(tmp_path):
    config = Loose()
    config.io.results = str(tmp_path)
    return config


def test_what_cannot_change_a_result_is_no_part_of_identity(config):
    name = fingerprint(config)
    config.io.workers, config.force, config.logger.name = 7, True, "wandb"
    config.data.where = "elsewhere"
    assert fingerprint(config) == name


def test_what_can_change_a_result_is(config):
    names = {fingerprint(config)}
    for change in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.hparams, "lr", 2e-3),
        lambda: setattr(config.data, "content", "other bytes"),
        lambda: setattr(config.peft, "later", 1),
    ):
        change()
        names.add(fingerprint(config))
    assert len(names) == 5


def test_a_later_option_at_its_neutral_value_keeps_old_names(config):
    @dataclass
    class Before(Choice):
        size: int = 1

    now = fingerprint(config)
    config.peft = Before("p")
    assert fingerprint(config) == now


def test_a_run_happens_once(config, capsys):
    calls = []
    train = lambda run: calls.append(run) or {"metrics": {}}  # noqa: E731
    assert Run(config).state() is State.NEW
    first = Run(config).once(train)
    assert Run(config).state() is State.DONE
    assert Run(config).once(train) == first
    assert len(calls) == 1
    said = capsys.readouterr().out
    assert "done already" in said
    assert str(Run(config).directory) in said
    config.force = True
    Run(config).once(train)
    assert len(calls) == 2


def test_a_failure_is_recorded_with_its_traceback_and_tried_again(config):
    def broken(run):
        raise ValueError("loss is not finite")

    with pytest.raises(ValueError, match="not finite"):
        Run(config).once(broken)
    run = Run(config)
    assert run.state() is State.FAILED
    record = read_json(run.directory / "failed.json")
    assert record["error"]["type"] == "ValueError"
    assert "loss is not finite" in record["error"]["traceback"]
    run.once(lambda run: {})
    assert run.state() is State.DONE
    assert not (run.directory / "failed.json").exists()


def test_ctrl_c_reads_as_interrupted(config):
    def stopped(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(config).once(stopped)
    assert Run(config).state() is State.INTERRUPTED
    assert owner_of(Run(config).directory) is None


def test_a_signal_before_the_first_write_leaves_word_too(config, monkeypatch):
    monkeypatch.setattr(Run, "prepare", lambda run: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        Run(config).once(lambda run: {})
    failure = read_json(Run(config).directory / "failed.json")
    assert (failure["status"], failure["id"]) == ("interrupted", Run(config).id)


def test_a_live_owner_is_respected_and_a_dead_one_replaced(config):
    directory = Run(config).directory
    code = (
        "import sys, time; from pathlib import Path; from segsweep.base.owner import owned\n"
        "with owned(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        assert state_of(directory) is State.RUNNING
        with pytest.raises(UserError, match=str(other.pid)):
            Run(config).once(lambda run: {})
        other.kill()
        other.wait()
    assert (owner_of(directory) or {})["pid"] == other.pid
    assert state_of(directory) is State.INTERRUPTED
    Run(config).once(lambda run: {})
    assert state_of(directory) is State.DONE
    assert owner_of(directory) is None
    assert not [*directory.glob(".*")]


def test_an_earlier_attempt_of_the_same_job_is_awaited(config, monkeypatch):
    """SLURM may begin a job anew while its processes, on a node taken for dead, still run."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    code = (
        "import os, sys, time; from pathlib import Path; from segsweep.base.owner import owned\n"
        "with owned(Path(sys.argv[1])):\n"
        "    print('mine', flush=True); time.sleep(1); os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(Run(config).directory)], stdout=subprocess.PIPE, text=True
    ) as earlier:
        assert earlier.stdout is not None
        assert earlier.stdout.readline() == "mine\n"
        Run(config).once(lambda run: {"earlier": earlier.poll()})
    assert read_json(Run(config).directory / "record.json")["earlier"] is not None


def test_only_one_of_many_owns(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from segsweep.base.owner import owned\n"
        "from segsweep.base.errors import UserError\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "try:\n"
        "    with owned(Path(sys.argv[1])): print('mine', flush=True); time.sleep(1.5)\n"
        "except UserError: print('busy')"
    )
    start = str(time.time() + 2)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run"), start],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = sorted(racer.communicate()[0].strip() for racer in racers)
    assert said == ["busy", "busy", "busy", "mine"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})

    def full_disk(temporary):
        temporary.write_text("half of")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, full_disk)
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["record.json"]


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "record.json", {"value": float("nan")})


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, value)
    assert read_json(path) == json.loads(json.dumps(value))


def test_who_lets_go_leaves_word_of_it_and_nothing_else(tmp_path):
    with owned(tmp_path):
        assert owner_of(tmp_path)
    assert owner_of(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["owner.1"]
    assert state_of(tmp_path) is State.NEW

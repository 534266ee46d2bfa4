"""Sweeps on this machine: places, threads, logs, failures, stopping."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps import local
from segsweep.sweeps.local import Local, Slots, gpus
from tests.runs import TINY
from tests.slurm import counted
from tests.slurm.counted import marks

pytestmark = pytest.mark.slow
SWEEP = ["-m", "hydra/launcher=local", *TINY, "hparams.epochs=1"]
STAND_IN = """
import os, sys, time
from pathlib import Path
sys.executable = os.path.abspath("python")  # what trains: runs that sleep, and keep count
sys.argv[0] = "segsweep"
from segsweep.__main__ import main
Path(f"ready.{os.getpid()}").touch()
while len(list(Path().glob("ready.*"))) < 2:
    time.sleep(0.01)
main()
"""


def run(*words: str) -> Run:
    return Run(compose(list(words)))


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`nvidia-smi -L` that says what it is told."""

    def say(text: str) -> list[str]:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return gpus()

    return say


def test_gpus_are_listed_without_torch(listed) -> None:
    assert listed("GPU 0: A100 (UUID: GPU-1)\nGPU 1: A100 (UUID: GPU-2)") == ["0", "1"]
    parts = "GPU 0: A100 (UUID: GPU-1)\n  MIG 1g.5gb     Device  0: (UUID: MIG-a)\n"
    assert listed(parts + "  MIG 1g.5gb     Device  1: (UUID: MIG-b)") == ["MIG-a", "MIG-b"]


@pytest.mark.parametrize(("visible", "found"), [("", []), ("-1", []), ("2,5", ["2", "5"])])
def test_visible_devices_are_all_there_are(monkeypatch, visible, found) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found


def test_runs_share_gpus_and_one_with_two_devices_takes_two(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    places = Slots(Local(jobs_per_gpu=2), runs=9)
    one, two = run(), run("trainer.devices=2")
    assert [places.take(one) for _ in range(3)] == [["0"], ["1"], ["0"]]
    assert places.take(two) is None
    places.give_back(["0"])
    assert sorted(places.take(two) or []) == ["0", "1"]
    assert places.take(one) is None
    assert places.take(run("trainer.accelerator=cpu")) == ["cpu"]
    with pytest.raises(UserError, match="2 GPUs"):
        places.take(run("trainer.devices=3"))
    with pytest.raises(UserError, match="slurm"):
        places.take(run("trainer.nodes=2"))


@pytest.mark.parametrize(
    ("cores", "runs", "workers", "at_once", "threads"),
    [(2, 9, None, 2, 1), (2, 1, None, 1, 2), (64, 99, None, 8, 8), (2, 9, 4, 4, 1)],
)
def test_cores_are_shared(monkeypatch, cores, runs, workers, at_once, threads) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local, "cores", lambda: cores)
    places = Slots(Local(workers), runs)
    assert (places.workers, places.threads) == (at_once, threads)
    assert [places.take(run()) for _ in range(at_once + 1)] == [["cpu"]] * at_once + [None]


def test_a_sweep_leaves_logs_and_names_what_failed(tmp_path) -> None:
    command = [sys.executable, "-m", "segsweep", *SWEEP, "peft.targets=[deformable],[no.such]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "1 of 2 runs failed" in done.stderr
    assert "'no.such' matches none" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    states = {state_of(d): d for d in (tmp_path / "results" / "runs").iterdir()}
    assert states.keys() == {State.DONE, State.FAILED}
    assert "epoch 1/1" in (states[State.DONE] / "log.txt").read_text()
    seconds = json.loads((states[State.DONE] / "record.json").read_text())["seconds"]
    assert seconds["total"] >= seconds["start"] + seconds["setup"] + seconds["train"] > 0
    assert "epoch 1/1" not in done.stdout
    assert "[2/2]" in done.stdout


def test_the_same_sweep_twice_at_once_trains_each_run_once_and_ends_twice(tmp_path) -> None:
    """Whoever comes second waits for what the first one trains, and for nothing more."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {counted.__file__} "$@"\n')
    python.chmod(0o755)
    words = [
        "-m",
        "hydra/launcher=local",
        "hydra.launcher.workers=2",
        "peft=frozen",
        "seed=range(3)",
    ]
    command = [sys.executable, "-c", STAND_IN, *words, "model.weights=null"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = os.environ | {"COUNTED_SECONDS": "1"}
    racers = [subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) for _ in range(2)]
    said = [racer.communicate(timeout=120)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert all("[3/3] done" in text for text in said), said
    runs = list((tmp_path / "results" / "runs").glob("*/marks"))
    assert [len(marks(path.parent, "done")) for path in runs] == [1] * 3
    assert any("elsewhere" in text for text in said)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_runs_with_checkpoints(tmp_path, signum) -> None:
    words = [*SWEEP, "hparams.epochs=50", "io.save_every=1000", "seed=0,1"]
    command = [sys.executable, "-m", "segsweep", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        curves = partial(tmp_path.glob, "results/runs/*/metrics.jsonl")
        while sum(curve.stat().st_size > 0 for curve in curves()) < 2:  # each has made a step
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signum)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signum
    assert "stopping 2 runs" in said
    assert "Traceback" not in said
    for directory in (tmp_path / "results" / "runs").iterdir():
        assert state_of(directory) is State.INTERRUPTED
        assert (directory / "last.ckpt").exists()

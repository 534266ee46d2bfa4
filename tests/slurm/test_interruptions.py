"""Jobs that train and are told to stop: they end with the bits of an undisturbed run.

What happens to those that are not told (killed, a node that dies) is in test_faults.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segsweep.base.owner import owner_of
from segsweep.base.queue import queue
from segsweep.run.identity import State, state_of
from tests.runs import STEPS, TINY, curve, logged_steps, result, the_run
from tests.slurm.conftest import Cluster
from tests.slurm.counted import LAUNCHER, marks
from tests.slurm.jobs import PATIENCE, WORDS, accounted, begin, said

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        [sys.executable, "-m", "segsweep", *TINY],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def at_step(cluster: Cluster, folder: Path, step: int) -> int:
    """Stop the process of a run when it has made a step; return its id."""
    cluster.wait(lambda: logged_steps(folder) >= step, PATIENCE)
    pid = (owner_of(the_run(folder)) or {})["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert logged_steps(folder) < STEPS, "too fast to be disturbed"
    return pid


def assert_undisturbed(folder: Path, undisturbed: Path) -> None:
    assert result(folder) == result(undisturbed)
    assert curve(folder) == curve(undisturbed)
    assert not (the_run(folder) / "failed.json").exists()


def test_a_sweep_is_submitted_trained_and_done(cluster, undisturbed, tmp_path) -> None:
    done = cluster.segsweep(*WORDS, "seed=0,1", "hydra.launcher.wait=true", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 done" in cluster.segsweep("status", cwd=tmp_path).stdout
    (of_seed_0,) = tmp_path.glob(f"results/runs/{the_run(undisturbed).name}")
    assert (of_seed_0 / "delta.safetensors").read_bytes() == (
        the_run(undisturbed) / "delta.safetensors"
    ).read_bytes()
    assert "done already" in cluster.segsweep(*WORDS, "seed=0,1", cwd=tmp_path).stdout


def near_the_limit(cluster: Cluster, pid: int, job: str) -> None:
    """Shorten the limit to the minute after the one that has begun, until SLURM has spoken."""
    words = ["squeue", "--noheader", f"--jobs={job}", "--format=%M"]
    used = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    limit(job, int(used.split(":")[0]) + 2)
    cluster.wait(lambda: pending(pid, signal.SIGUSR2))
    os.kill(pid, signal.SIGCONT)
    cluster.wait(lambda: cluster.queue().get(job) == "PENDING")
    limit(job, 30)


def limit(job: str, minutes: int) -> None:
    command = ["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"]
    subprocess.run(command, check=True)


def preempt(cluster: Cluster, pid: int, job: str) -> None:
    words = ["--partition=main", "--nodes=3", "--exclusive", "--wrap=sleep 1"]
    subprocess.run(["sbatch", "--output=/dev/null", *words], check=True, capture_output=True)
    cluster.wait(lambda: pending(pid, signal.SIGTERM))
    os.kill(pid, signal.SIGCONT)


def pending(pid: int, signum: int) -> bool:
    """Whether a signal waits for a stopped process; SLURM continues it before SIGTERM."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        raise AssertionError("the process was ended before it was told") from None
    masks = [int(x.split()[1], 16) for x in lines if x.startswith(("SigPnd", "ShdPnd"))]
    stopped = any(line.startswith("State:\tT") for line in lines)
    return not stopped or any(mask >> (signum - 1) & 1 for mask in masks)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (near_the_limit, ["hydra.launcher.time=30", "hydra.launcher.signal_delay=100"]),
        (preempt, ["hydra.launcher.partition=low"]),
    ],
)
def test_a_run_goes_on_by_itself(
    cluster: Cluster, undisturbed: Path, tmp_path: Path, harm: Callable, words: list[str]
) -> None:
    directory, job = begin(cluster, tmp_path, *words)
    harm(cluster, at_step(cluster, tmp_path, 4), job)
    cluster.wait(lambda: (directory / "record.json").exists(), 2 * PATIENCE)
    assert_undisturbed(tmp_path, undisturbed)
    assert json.loads((directory / "job.json").read_text())["attempts"] == 1
    assert "stopping after this step" in said(directory)


def test_a_cancelled_run_stops_with_a_checkpoint_and_the_same_command_goes_on(
    cluster, undisturbed, tmp_path
) -> None:
    directory, job = begin(cluster, tmp_path)
    pid = at_step(cluster, tmp_path, 4)
    os.kill(pid, signal.SIGCONT)
    subprocess.run(["scancel", job], check=True)
    cluster.wait_empty(PATIENCE)
    assert accounted(job) == "CANCELLED"
    assert state_of(directory, queue()) in (State.INTERRUPTED, State.LOST)
    assert "requeued" not in said(directory)
    begin(cluster, tmp_path)
    cluster.wait(lambda: (directory / "record.json").exists(), PATIENCE)
    assert_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_time_limit_while_setting_up_is_a_failure(
    cluster, undisturbed, tmp_path, retries, monkeypatch
) -> None:
    """Requeued without end, it would never get further; with a retry left nothing is lost."""
    monkeypatch.setenv("SETUP_SECONDS", "120")
    directory, job = begin(cluster, tmp_path, *LAUNCHER, f"hydra.launcher.retries={retries}")
    cluster.wait(lambda: marks(directory, "setting up"), PATIENCE)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    cluster.wait_empty(2 * PATIENCE)
    if retries:
        assert_undisturbed(tmp_path, undisturbed)
    else:
        assert accounted(job) == "FAILED"
        assert "hydra.launcher.time is short" in said(directory)
        assert state_of(directory, queue()) is State.FAILED

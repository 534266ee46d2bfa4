"""Sweeps under faults: the same command line again, and the table is that of an undisturbed one."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segsweep.base.owner import owner_of
from segsweep.base.process import is_live
from tests.slurm.conftest import Cluster
from tests.slurm.counted import LAUNCHER, marks

pytestmark = pytest.mark.slow
SLEEPING = ["peft=frozen", "model.weights=null", "hydra.launcher.cpus_per_task=1"]
REAL = [
    "peft.rank=2,4", "seed=0,1", "data.train=16", "data.val=8", "hparams.batch_size=4",
    "hparams.epochs=3", "hparams.lr=0.01", "io.log_every=1", "io.save_every=1",
]  # fmt: skip
ONE = [word.split(",")[0] for word in REAL]  # the first run of that grid
JOBS = [*LAUNCHER, "hydra.launcher.cpus_per_task=1"]
MEASURED = ("started", "ended", "seconds.", "memory.", "config.io.results")
NO_COMMIT = {"GIT_DIR": "/nowhere"}  # somebody may commit meanwhile, and tables would say so


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid of REAL, trained and collected on this machine without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for words in (["-m", "hydra/launcher=local", "hydra.launcher.workers=2", *REAL], ["collect"]):
        done = subprocess.run(
            [sys.executable, "-m", "segsweep", *words],
            cwd=folder,
            env=os.environ | NO_COMMIT | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    return folder


def submitted(cluster: Cluster, folder: Path, *words: str) -> int:
    """Give a command line; return how many runs it submitted."""
    done = cluster.segsweep("-m", *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    if "submitted" not in done.stdout:  # all done
        return 0
    return int(done.stdout.partition("submitted ")[2].split()[0])


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "runs").glob("[!.]*"))


def job(run: Path) -> str:
    return json.loads((run / "job.json").read_text())["id"]


def task(run: Path) -> int:
    return int(job(run).split("_")[1])


def place(run: Path) -> str:
    words = ["squeue", "--noheader", f"--jobs={job(run)}", "--format=%N"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def training(run: Path) -> int | None:
    """The process that trains a run, once it has made two steps itself."""
    owner = owner_of(run)
    if owner is None or not is_live(owner) or not (run / "metrics.jsonl").exists():
        return None
    *whole, _ = (run / "metrics.jsonl").read_text().split("\n")  # the last is being written
    lines = map(json.loads, whole)
    own = [line for line in lines if "lr" in line and line["time"] >= owner["started"]]
    return owner["pid"] if len(own) >= 2 else None


def hold(cluster: Cluster, *among: Path) -> dict[Path, int]:
    """Stop the process of each of these runs as soon as it trains; return their ids."""
    held: dict[Path, int] = {}

    def all_held() -> bool:
        for run in set(among) - set(held):
            assert not (run / "record.json").exists(), "too fast to be disturbed"
            if pid := training(run):
                os.kill(pid, signal.SIGSTOP)
                held[run] = pid
        return len(held) == len(among)

    cluster.wait(all_held, pause=0.02)
    return held


def assert_each_done_once(folder: Path) -> None:
    for run in runs(folder):
        assert json.loads((run / "record.json").read_text())["status"] == "done"
        assert len(marks(run, "done")) == 1, (run / "marks").read_text()
        assert not (run / "failed.json").exists()


def most_at_once(folder: Path) -> int:
    """How many runs were under way at the same time, at most."""
    begun = [(when, 1) for run in runs(folder) for when in marks(run, "begun")]
    done = [(when, -1) for run in runs(folder) for when in marks(run, "done")]
    now = peak = 0
    for _, change in sorted(begun + done):
        now += change
        peak = max(peak, now)
    return peak


def results(run: Path) -> tuple[bytes, dict, list[dict]]:
    """What a run has come to: its weights, its metrics, its curve without the clock."""
    record = json.loads((run / "record.json").read_text())
    *whole, _ = (run / "metrics.jsonl").read_text().split("\n")  # the last is being written
    lines = map(json.loads, whole)
    curve = [{k: v for k, v in line.items() if k != "time"} for line in lines]
    return (run / "delta.safetensors").read_bytes(), record["metrics"], curve


def table(folder: Path, name: str) -> bytes:
    return (folder / "results" / "tables" / name).read_bytes()


def without_measurements(text: bytes) -> list[dict[str, str]]:
    """The rows of runs.csv without clock, memory and place."""
    rows = csv.DictReader(text.decode().splitlines())
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in rows]


def test_eight_runs_are_one_array_of_which_two_run_at_once(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COUNTED_SECONDS", "1")
    words = [*LAUNCHER, *SLEEPING, "seed=range(8)", "hydra.launcher.array_parallelism=2"]
    assert submitted(cluster, tmp_path, *words) == 8
    assert len({job(run).split("_")[0] for run in runs(tmp_path)}) == 1
    seen = set()
    while queue := cluster.queue():
        seen.add(list(queue.values()).count("RUNNING"))
    assert max(seen) == most_at_once(tmp_path) == 2
    assert_each_done_once(tmp_path)
    assert submitted(cluster, tmp_path, *words) == 0


def test_a_run_killed_for_memory_goes_on_where_there_is_more(
    cluster, undisturbed, tmp_path
) -> None:
    """Twice: as often as it is allowed to."""
    words = [*JOBS, *ONE]
    assert submitted(cluster, tmp_path, *words, "hydra.launcher.mem=300M") == 1
    (run,) = runs(tmp_path)
    cluster.wait_empty()
    assert (run / "log.txt").read_text().count("exceeded memory limit") >= 2
    assert "lost" in cluster.segsweep("status", cwd=tmp_path).stdout
    assert submitted(cluster, tmp_path, *words, "hydra.launcher.mem=3000M") == 1
    cluster.wait_empty()
    assert_each_done_once(tmp_path)
    assert results(run) == results(undisturbed / run.relative_to(tmp_path))


def test_a_controller_that_restarts_in_mid_sweep_loses_nothing(
    cluster, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("COUNTED_SECONDS", "4")
    words = [*LAUNCHER, *SLEEPING, "seed=range(3)", "hydra.launcher.array_parallelism=1"]
    assert submitted(cluster, tmp_path, *words) == 3
    cluster.wait(lambda: any(marks(run, "begun") for run in runs(tmp_path)))
    cluster.control("ctld-restart")
    assert submitted(cluster, tmp_path, *words) == 0
    cluster.wait_empty()
    assert_each_done_once(tmp_path)
    assert sum(len(marks(run, "begun")) for run in runs(tmp_path)) == 3
    assert most_at_once(tmp_path) == 1


def test_a_sweep_under_several_faults_ends_with_the_table_of_an_undisturbed_one(
    cluster, undisturbed, tmp_path, monkeypatch
) -> None:
    """Three time limits for one run, a dead node, a cancelled job, and a kill without controller.

    The killed one is the last of the array: its job has the number of the array.
    """
    for name, value in NO_COMMIT.items():
        monkeypatch.setenv(name, value)
    words = [*JOBS, *REAL]
    assert submitted(cluster, tmp_path, *words) == 4
    crashed, cancelled, limited, killed = sorted(runs(tmp_path), key=task)

    held = hold(cluster, crashed, cancelled, limited, killed)
    os.kill(held[cancelled], signal.SIGCONT)
    subprocess.run(["scancel", job(cancelled)], check=True)
    cluster.wait(lambda: job(cancelled) not in cluster.queue())
    node = place(crashed)
    cluster.control("crash", node)
    cluster.control("ctld-down")
    os.kill(held[killed], signal.SIGKILL)
    time.sleep(1)  # its batch script asks, and nobody answers
    cluster.control("ctld-up")
    for _ in range(3):
        pid = hold(cluster, limited)[limited]
        subprocess.run(["scancel", "--signal=USR2", job(limited)], check=True)
        os.kill(pid, signal.SIGCONT)
        cluster.wait(lambda: cluster.queue().get(job(limited)) != "RUNNING")
    cluster.wait(lambda: len(marks(crashed, "begun")) > 1)
    cluster.control("revive", node)

    cluster.wait_empty()
    assert submitted(cluster, tmp_path, *words) == 1  # the cancelled one
    cluster.wait_empty()
    assert submitted(cluster, tmp_path, *words) == 0
    assert_each_done_once(tmp_path)
    assert len(marks(limited, "begun")) >= 4
    for run in (killed, cancelled, crashed):
        assert len(marks(run, "begun")) >= 2
    for run in (killed, crashed, limited):  # went on by themselves
        assert json.loads((run / "job.json").read_text())["attempts"] == 1
    for run in runs(tmp_path):
        assert results(run) == results(undisturbed / run.relative_to(tmp_path))
    assert cluster.segsweep("collect", cwd=tmp_path).returncode == 0
    for name in ("ablation.md", "ablation.csv"):
        assert table(tmp_path, name) == table(undisturbed, name)
    mine, theirs = (without_measurements(table(f, "runs.csv")) for f in (tmp_path, undisturbed))
    assert mine == theirs

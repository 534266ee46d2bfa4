"""Who is submitted, and what is remembered of it, on a real controller. No job of these begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.owner import owned
from segsweep.base.queue import Queue, queue
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps.slurm import Slurm, prune, recover, submit
from tests.runs import left_owner
from tests.slurm.conftest import Cluster

HELD = ["-m", "hydra/launcher=slurm", "hydra.launcher.sbatch={hold: true}"]
SBATCH = """#!/bin/bash
{before}
out=$({sbatch} "$@") || exit
{after}
echo "$out"
"""


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "runs").glob("[!.]*"))


def jobs(folder: Path) -> list[dict]:
    return [json.loads((run / "job.json").read_text()) for run in runs(folder)]


def intents(folder: Path) -> list[dict]:
    found = (folder / "results" / "runs" / ".submit").glob("*.json")
    return [json.loads(path.read_text()) for path in found]


def test_a_run_is_submitted_once_and_a_wider_grid_adds_the_new_ones(cluster, tmp_path) -> None:
    said = cluster.segsweep(*HELD, "seed=0,1", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "submitted 2 of 2" in said.stdout
    assert {job["id"] for job in jobs(tmp_path)} == set(cluster.queue())
    assert "submitted 0 of 2" in cluster.segsweep(*HELD, "seed=0,1", cwd=tmp_path).stdout
    said = cluster.segsweep(*HELD, "seed=0,1,2", cwd=tmp_path)
    assert "submitted 1 of 3" in said.stdout
    assert len(cluster.queue()) == 3
    assert {state_of(run, queue()) for run in runs(tmp_path)} == {State.PENDING}
    assert all(state_of(run) is State.PENDING for run in runs(tmp_path))  # by files alone


def test_a_cancelled_job_is_lost_and_submitted_again(cluster, tmp_path) -> None:
    cluster.segsweep(*HELD, cwd=tmp_path)
    (run,) = runs(tmp_path)
    subprocess.run(["scancel", *cluster.queue()], check=True)
    cluster.wait_empty()
    assert state_of(run, queue()) is State.LOST
    assert "submitted 1 of 1" in cluster.segsweep(*HELD, cwd=tmp_path).stdout
    assert jobs(tmp_path)[0]["attempts"] == 2
    assert state_of(run, queue()) is State.PENDING
    assert len(intents(tmp_path)) == 1  # that of the first job served no more


def test_what_says_nothing_is_not_asked_of_sbatch(cluster, tmp_path) -> None:
    words = ["hydra.launcher.time=30", "hydra.launcher.mem=100M", "hydra.launcher.setup=[true]"]
    cluster.segsweep(*HELD, *words, "trainer.accelerator=gpu", "seed=0,1", cwd=tmp_path)
    (job, _) = cluster.queue()
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    assert "TimeLimit=00:30:00" in shown
    assert "MinMemoryNode=100M" in shown
    assert "gres:gpu:1" in shown or "gres/gpu:1" in shown
    assert "Requeue=1" in shown


@pytest.fixture
def small_arrays(cluster: Cluster):
    """A controller that takes arrays of at most 3."""
    conf = cluster.directory / "slurm.conf"
    before = conf.read_text()
    conf.write_text(before + "MaxArraySize=3\n")
    cluster.control("ctld-restart")
    yield
    conf.write_text(before)
    cluster.control("ctld-restart")


def test_a_sweep_larger_than_an_array_is_cut(cluster, small_arrays, tmp_path) -> None:
    said = cluster.segsweep(*HELD, "seed=range(7)", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert sorted(len(intent["runs"]) for intent in intents(tmp_path)) == [1, 3, 3]
    assert {job["id"] for job in jobs(tmp_path)} == set(cluster.queue())
    assert len(cluster.queue()) == 7


def test_a_silent_controller_is_no_reason_to_submit(cluster, tmp_path) -> None:
    cluster.segsweep(*HELD, "seed=0", cwd=tmp_path)
    cluster.control("ctld-down")
    try:
        said = cluster.segsweep(*HELD, "seed=0,1", cwd=tmp_path)
    finally:
        cluster.control("ctld-up")
    assert said.returncode == 2
    assert "squeue failed" in said.stderr
    assert "Traceback" not in said.stderr
    assert len(runs(tmp_path)) == len(cluster.queue()) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["hydra.launcher.partition=nowhere"], "hydra.launcher.partition=nowhere"),
        (["hydra.launcher.sbatch={no_such_option: 1}"], "launcher.sbatch.no_such_option=1"),
        (["hydra.launcher.time=3"], "hydra.launcher.time=3"),
        (["hydra.launcher.tme=30"], "did you mean 'time'"),
    ],
)
def test_what_slurm_refuses_is_said_and_leaves_nothing(cluster, tmp_path, words, named) -> None:
    said = cluster.segsweep(*HELD, *words, cwd=tmp_path)
    assert said.returncode == 2
    assert named in said.stderr
    assert "Traceback" not in said.stderr
    assert not cluster.queue()
    assert not intents(tmp_path)
    assert all(state_of(run, Queue()) is State.NEW for run in runs(tmp_path))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_login_process_killed_at_sbatch_submits_nothing_twice(
    cluster, tmp_path, monkeypatch, moment
) -> None:
    """`sbatch` is put in front of the real one, and kills who called it."""
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True).stdout.strip()
    kill = {"before": "", "after": "", moment: "kill -9 $PPID"}
    if moment == "before":
        kill["before"] += "; exit 1"
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "sbatch"
    shim.write_text(SBATCH.format(sbatch=real, **kill))
    shim.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
        assert cluster.segsweep(*HELD, "seed=0,1", cwd=tmp_path).returncode == -9
    (intent,) = intents(tmp_path)
    assert intent["id"] is None
    assert not list(tmp_path.glob("results/runs/*/job.json"))
    said = cluster.segsweep(*HELD, "seed=0,1", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert f"submitted {2 if moment == 'before' else 0} of 2" in said.stdout
    assert {job["id"] for job in jobs(tmp_path)} == set(cluster.queue())
    assert len(cluster.queue()) == 2
    assert len(intents(tmp_path)) == 1


def test_commands_in_the_same_instant_submit_each_run_once(cluster, tmp_path) -> None:
    command = [sys.executable, "-m", "segsweep", *HELD, "seed=0,1,2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    racers = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(3)]
    said = [racer.communicate(timeout=300)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], said
    assert sorted("submitted 3 of 3" in text for text in said) == [False, False, True], said
    assert len(cluster.queue()) == 3


def test_a_run_that_trains_here_is_not_submitted(cluster, tmp_path) -> None:
    run = Run(compose([f"io.results={tmp_path}"]))
    with owned(run.directory):
        assert submit([run], Slurm()) == {}
    assert submit([run], Slurm(sbatch={"hold": True})).keys() == {run.name}


def test_force_deletes_what_was_once_and_is_not_frozen(cluster, tmp_path) -> None:
    run = Run(compose([f"io.results={tmp_path}", "force=true"]))
    run.directory.mkdir(parents=True)
    for file in ("record.json", "last.ckpt"):
        (run.directory / file).write_text("{}")
    assert submit([run], Slurm(sbatch={"hold": True}))
    assert not (run.directory / "record.json").exists()
    assert not (run.directory / "last.ckpt").exists()
    assert "force: false" in (run.directory / "config.yaml").read_text()


def test_runs_of_unlike_size_are_unlike_jobs(cluster, tmp_path) -> None:
    def run(*words: str) -> Run:
        return Run(compose([f"io.results={tmp_path}", "trainer.accelerator=cpu", *words]))

    wide = [run("trainer.devices=2", f"seed={i}") for i in (0, 1)]
    submit([*wide, run("trainer.nodes=2")], Slurm(cpus_per_task=1, sbatch={"hold": True}))
    words = ["squeue", "--noheader", "--array", "--format=%F %D %C"]
    shown = subprocess.run(words, capture_output=True, text=True).stdout.split("\n")
    sizes = sorted(line.split()[1:] for line in shown if line)
    assert sizes == [["1", "2"], ["1", "2"], ["2", "2"]]
    assert len({line.split()[0] for line in shown if line}) == 2


def test_logs_move_to_runs_that_are_done_and_their_intents_go(cluster, tmp_path) -> None:
    run = Run(compose([f"io.results={tmp_path}"]))
    submit([run], Slurm(sbatch={"hold": True}))
    log = run.directory / "log.txt"
    assert log.is_symlink()
    log.resolve().write_text("said")
    root = run.directory.parent
    prune(root, queue())
    assert log.is_symlink()  # it may still begin
    subprocess.run(["scancel", *cluster.queue()], check=True)
    cluster.wait_empty()
    prune(root, queue())
    assert log.is_symlink()  # it is lost, and its log says why
    (run.directory / "record.json").write_text("{}")
    prune(root, queue())
    assert not log.is_symlink()
    assert log.read_text() == "said"
    assert not list((root / ".submit").glob("[!o]*"))  # of the owner's files


def test_status_recovers_what_a_killed_login_process_left(cluster, tmp_path) -> None:
    run = Run(compose([f"io.results={tmp_path}"]))
    submit([run], Slurm(sbatch={"hold": True}))
    job = json.loads((run.directory / "job.json").read_text())
    (run.directory / "job.json").unlink()
    (path,) = (run.directory.parent / ".submit").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": None}))
    recover(run.directory.parent, queue())
    assert json.loads((run.directory / "job.json").read_text()) == job


def test_an_owner_of_another_host_lives_while_its_job_does(cluster, tmp_path) -> None:
    run = Run(compose([f"io.results={tmp_path}"]))
    (job,) = submit([run], Slurm(sbatch={"hold": True})).values()
    left_owner(run.directory, host="elsewhere", pid=1, job=job)
    with pytest.raises(UserError, match="elsewhere"), owned(run.directory):
        pass
    subprocess.run(["scancel", job], check=True)
    cluster.wait_empty()
    with owned(run.directory):
        assert state_of(run.directory) is State.RUNNING

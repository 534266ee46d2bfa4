"""Verbs over runs that are SLURM jobs: seen, read, cancelled, started again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.owner import owner_of
from tests.wandb_server import serving

pytestmark = pytest.mark.slow

LAUNCH = ["-m", "hydra/launcher=slurm", "hydra.launcher.retries=0", "trainer.accelerator=cpu"]
SMALL = ["data.train=8", "data.val=4", "hparams.batch_size=4", "io.save_every=1"]
ONE_AT_A_TIME = ["hydra.launcher.cpus_per_task=2", "+hydra.launcher.sbatch.nodelist=n1"]


class Login:
    """What somebody types in a folder of the login node."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def __call__(self, *words: str) -> str:
        """Type a verb that must succeed; return what it said."""
        done = self.cluster.segsweep(*words, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def states(self, *words: str) -> dict[str, dict[str, Any]]:
        """Return what `status` says, by run."""
        return {one["run"]: one for one in json.loads(self("status", *words, "--json"))}

    def file(self, run: str, name: str) -> Path:
        """Return a file of a run."""
        return self.folder / "results" / "runs" / run / name

    def job(self, run: str) -> dict[str, Any]:
        """Return what is remembered of a run's job."""
        return json.loads(self.file(run, "job.json").read_text())


@pytest.fixture
def login(cluster, tmp_path: Path) -> Login:
    return Login(cluster, tmp_path)


def test_a_sweep_is_seen_cancelled_started_again_and_lost(login: Login) -> None:
    options = ["hydra.launcher.requeue=false", "hparams.epochs=900", "io.sweep=ranks", "seed=1,2"]
    login(*LAUNCH, *SMALL, *ONE_AT_A_TIME, *options)
    runs = list(login.states("ranks"))
    login.cluster.wait(lambda: any(login.file(run, "last.ckpt").exists() for run in runs))
    found = login.states("ranks")
    by_state = {one["state"]: run for run, one in found.items()}
    assert set(by_state) == {"running", "pending"}
    running, waiting = by_state["running"], by_state["pending"]
    assert login.job(waiting)["id"] in found[waiting]["note"]
    assert f"run {running}" in login("logs", running)

    assert "2 jobs cancelled" in login("cancel", "ranks")
    login.cluster.wait_empty()
    found = login.states("ranks")
    assert (found[running]["state"], found[waiting]["state"]) == ("interrupted", "new")
    assert found[running]["note"] == found[waiting]["note"] == "cancelled"
    assert "0 of them live" in login("cancel", "ranks")
    step = found[running]["step"]

    said = login("retry", running, "--trust", "--with", "time=30")
    assert "submitted 1 runs" in said
    assert login.job(running)["launcher"]["time"] == 30
    assert "cancelled" in login.job(waiting)  # it was not named, and stays
    login.cluster.wait(lambda: login.states(running)[running]["step"] > step)
    curve = login.file(running, "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in curve]
    assert steps == sorted(steps)  # it went on

    os.kill((owner_of(login.file(running, "")) or {})["pid"], signal.SIGKILL)
    login.cluster.wait(lambda: login.states(running)[running]["state"] == "lost")
    assert "is gone" in login("status", "ranks")
    assert "submitted 1 runs" in login("retry", "ranks", "--trust", "--state", "lost")
    assert "1 jobs cancelled" in login("cancel", "--all")


def test_failures_are_shown_with_their_last_line_and_log(login: Login) -> None:
    (login.folder / "bad.pt").write_bytes(b"no weights")
    login(*LAUNCH, *SMALL, *ONE_AT_A_TIME, "io.sweep=bad", "model.weights=bad.pt")
    login.cluster.wait_empty()
    ((run, found),) = login.states("bad").items()
    assert found["state"] == "failed"
    assert "bad.pt" in found["note"]
    assert "bad.pt: damaged" in login("logs", run)


def test_a_plan_shows_what_is_submitted_then_and_the_controller_may_be_away(login: Login) -> None:
    later = "+hydra.launcher.sbatch.begin=now+1hour"
    words = [*LAUNCH, *ONE_AT_A_TIME, later, "+sweep=demo"]
    planned = [line for line in login("plan", *words).splitlines() if line.startswith("#SBATCH")]
    login(*words)
    (batch,) = login.folder.glob("results/runs/.submit/*/batch.sh")
    asked = [line for line in batch.read_text().splitlines() if line.startswith("#SBATCH")]
    own = ("#SBATCH --comment", "#SBATCH --output")  # hold the submission's own number
    assert {x for x in planned if not x.startswith(own)} == {
        x for x in asked if not x.startswith(own)
    }
    assert "6 runs: 6 pending" in login("status", "demo")
    assert "0 to run" in login("plan", *words)
    for job in login.folder.glob("results/runs/*/job.json"):  # as if the command had died there
        job.unlink()
    intent = batch.parent.with_suffix(".json")
    intent.write_text(json.dumps(json.loads(intent.read_text()) | {"id": None}))
    assert "6 runs: 6 pending" in login("status", "demo")

    login.cluster.control("ctld-down")
    try:
        said = login("status", "demo")
        assert "by their files alone" in said
        assert "6 pending" in said
        refused = login.cluster.segsweep("cancel", "demo", cwd=login.folder)
        assert refused.returncode == 2
        assert "squeue" in refused.stderr
    finally:
        login.cluster.control("ctld-up")
    assert "6 jobs cancelled" in login("cancel", "demo")


def test_jobs_log_offline_and_sync_sends_them_later(login: Login, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    short = ["hparams.epochs=1", "trainer.limit_train=2", "trainer.limit_val=1", "io.log_every=1"]
    with serving() as server:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)  # jobs could, and do not
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        login(*LAUNCH, *SMALL, *ONE_AT_A_TIME, *short, "logger=wandb", "io.sweep=logged")
        login.cluster.wait_empty()
        ((run, found),) = login.states("logged").items()
        assert found["state"] == "done", login("logs", run)
        assert list(login.file(run, "wandb").glob("offline-run-*"))
        assert server.rows == {}
        login("sync", "logged")
        assert [row["_step"] for row in server.rows[run.rpartition("-")[2]]] == [1, 2]
        assert "1 leftovers" in login("prune", "--yes")  # the offline files
        assert not login.file(run, "wandb").exists()

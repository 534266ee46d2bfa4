"""Jobs that train: their failures, their frozen configs, several nodes, other launchers."""

from __future__ import annotations

import json
import subprocess

import pytest

from segsweep.base.queue import queue
from segsweep.run.identity import State, state_of
from tests.runs import STEPS, TINY, curve, logged_steps, the_run
from tests.slurm.jobs import PATIENCE, WORDS, accounted, begin, said

pytestmark = pytest.mark.slow


def test_a_run_that_fails_says_so_to_slurm_and_in_its_log(cluster, tmp_path) -> None:
    """After the retry that it has by default; without one: test_interruptions.py."""
    held = ["hydra.launcher.sbatch={hold: true}", "logger=tensorboard"]
    assert cluster.segsweep(*WORDS, *held, cwd=tmp_path).returncode == 0
    directory, (job,) = the_run(tmp_path), cluster.queue()
    (directory / "tensorboard").touch()  # where a folder is to be made
    subprocess.run(["scontrol", "release", job], check=True)
    cluster.wait_empty(2 * PATIENCE)
    assert accounted(job) == "FAILED"
    assert state_of(directory, queue()) is State.FAILED
    assert said(directory).count("FileExistsError") == 2
    assert said(directory).count("requeued") == 1
    assert "FileExistsError" in cluster.segsweep("status", cwd=tmp_path).stdout


def test_an_edited_yaml_does_not_reach_a_pending_job(cluster, tmp_path) -> None:
    mine = tmp_path / "conf" / "peft" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    text = "_target_: segsweep.peft.lora.LoRA\nname: mine\nrank: 2\n"
    mine.write_text(text)
    words = ["--config-dir", "conf", *WORDS, "peft=mine", "hydra.launcher.sbatch={hold: true}"]
    assert cluster.segsweep(*words, cwd=tmp_path).returncode == 0
    mine.write_text(text.replace("rank: 2", "rank: x"))
    directory = the_run(tmp_path)
    subprocess.run(["scontrol", "release", *cluster.queue()], check=True)
    cluster.wait(lambda: (directory / "record.json").exists(), PATIENCE)
    assert json.loads((directory / "record.json").read_text())["config"]["peft"]["rank"] == 2


def test_two_nodes_train_one_run_and_stop_at_the_same_step(cluster, tmp_path) -> None:
    setup = "hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1']"  # nodes without addresses
    words = ["trainer.accelerator=cpu", "trainer.nodes=2", "hparams.epochs=8"]
    directory, job = begin(cluster, tmp_path, *words, setup)
    cluster.wait(lambda: logged_steps(tmp_path) >= 4, PATIENCE)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    cluster.wait_empty(2 * PATIENCE)
    assert accounted(job) == "COMPLETED", said(directory)
    assert said(directory).count("requeued") == 1
    steps = [line["step"] for line in curve(tmp_path) if "loss" in line]
    assert steps == list(range(1, 8 * STEPS // 3 + 1))


def test_hydras_own_launchers_train_a_run_once(cluster, tmp_path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["-m", *TINY, "hparams.epochs=1"]
    minutes = "hydra.launcher.timeout_min=20"
    done = cluster.segsweep(*words, "hydra/launcher=submitit_slurm", minutes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (the_run(tmp_path) / "record.json").exists()
    for launcher in ("submitit_slurm", "submitit_local", "basic", "local", "slurm"):
        done = cluster.segsweep(*words, f"hydra/launcher={launcher}", cwd=tmp_path)
        assert "1 of them done already" in done.stdout, done.stderr

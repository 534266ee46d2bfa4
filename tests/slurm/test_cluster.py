"""The cluster of the tests is a real one: jobs run, fail, and nodes die."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_jobs_run_with_the_devices_they_asked_for(cluster, tmp_path: Path) -> None:
    words = ["sbatch", "--parsable", "--gres=gpu:1", f"--output={tmp_path}/out"]
    script = "--wrap=echo $SLURM_JOB_ID $CUDA_VISIBLE_DEVICES"
    done = subprocess.run([*words, script], capture_output=True, text=True, check=True)
    cluster.wait_empty(60)
    number, device = (tmp_path / "out").read_text().split()
    assert number == done.stdout.strip()
    assert device in "01"

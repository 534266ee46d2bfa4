"""Workers that pull beside SLURM's own jobs of one sweep: nothing twice, nothing requeued."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segsweep.run.identity import State, state_of
from tests.slurm.counted import LAUNCHER, PYTHON, marks
from tests.slurm.jobs import accounted, said

pytestmark = pytest.mark.slow
SWEEP = ["-m", *LAUNCHER, "hydra.launcher.cpus_per_task=1", "hydra.launcher.sbatch={hold: true}",
         "io.sweep=demo", "peft=frozen", "model.weights=null", "seed=0,1,2"]  # fmt: skip
WORKER = "from tests.test_pull import START; exec(START)"


def test_jobs_find_what_workers_did_or_do(cluster, tmp_path) -> None:
    assert cluster.segsweep(*SWEEP, cwd=tmp_path).returncode == 0
    jobs = list(cluster.queue())
    runs = sorted(tmp_path.glob("results/runs/[!.]*"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(python), "work", "--sweep", "demo"],
        cwd=tmp_path,
        env=os.environ | {"COUNTED_SECONDS": "15", "PYTHONPATH": os.getcwd()},
    )
    cluster.wait(lambda: sum(len(marks(run, "begun")) for run in runs) == 1)
    subprocess.run(["scontrol", "release", *jobs], check=True)
    cluster.wait_empty(120)  # two jobs train, one finds its run with the worker
    assert worker.wait(timeout=120) == 0
    assert {state_of(run) for run in runs} == {State.DONE}
    assert [len(marks(run, "begun")) for run in runs] == [1, 1, 1]
    assert sorted(map(accounted, jobs)) == ["COMPLETED", "COMPLETED", "FAILED"]
    assert not any("requeued" in said(run) for run in runs)

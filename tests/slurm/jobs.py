"""One tiny run as a SLURM job: submitted, and what is said of it afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.runs import TINY, the_run
from tests.slurm.conftest import Cluster

WORDS = ["-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", *TINY]
PATIENCE = 240


def begin(cluster: Cluster, folder: Path, *words: str) -> tuple[Path, str]:
    """Submit the tiny run; return its directory and job."""
    said = cluster.segsweep(*WORDS, *words, cwd=folder)
    assert "submitted 1 of 1" in said.stdout, said.stderr
    (job,) = cluster.queue()
    return the_run(folder), job


def said(directory: Path) -> str:
    return (directory / "log.txt").read_text()


def accounted(job: str) -> str:
    """SLURM's word for how a job ended."""
    words = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()

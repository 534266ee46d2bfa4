"""A real SLURM cluster of three nodes, private to a test process, started when a test asks for it.

`cluster` is that cluster with clean queues, and the environment by which clients find it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged")
SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
MEMORY = """\
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
DefMemPerCPU=2000
"""  # steps that outgrow the memory of their job are ended, as a cgroup would


@dataclass(frozen=True)
class Cluster:
    """A running cluster: nodes n1 to n3 with 2 CPUs and 2 pretended GPUs; partitions main, low."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """What must be set for SLURM's programs to find it."""
        path = f"{self.directory}/bin{os.pathsep}{os.environ['PATH']}"
        return {"SLURM_CONF": f"{self.directory}/slurm.conf", "PATH": path}

    def control(self, *words: str) -> str:
        """Start, stop, or do harm: `control("crash", "n1")` (see scripts/slurm_cluster.sh)."""
        with tempfile.TemporaryFile("w+") as said:  # its daemons outlive it and would hold a pipe
            done = subprocess.run(
                [str(SCRIPT), *words],
                env=os.environ
                | {"SLURM_CLUSTER_DIR": str(self.directory), "SLURM_CLUSTER_EXTRA": MEMORY},
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=120,
            )
            said.seek(0)
            text = said.read()
        if done.returncode:
            raise RuntimeError(f"{SCRIPT.name} {' '.join(words)}: {text}")
        return text

    def segsweep(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Type `python -m segsweep WORDS` in a folder, on the login node."""
        command = [sys.executable, "-m", "segsweep", *map(str, words)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)

    def queue(self) -> dict[str, str]:
        """Return the jobs that wait or run, by id: their state."""
        words = ["squeue", "--noheader", "--array", "--format=%i %T"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        return dict(line.split() for line in done.stdout.splitlines())

    def wait(self, until: Callable[[], bool], seconds: float = 180, pause: float = 0.3) -> None:
        """Wait until something is so.

        Raises TimeoutError with the queue when it does not come about.
        """
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {seconds} s; queue: {self.queue()}")
            time.sleep(pause)

    def wait_empty(self, seconds: float = 180) -> None:
        """Wait until nothing waits or runs."""
        self.wait(lambda: not self.queue(), seconds)


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster in a short folder (unix sockets), stop it after the last test."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=SBIN)]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed (Debian: apt install slurm-wlm munge)")
    for attempt in (1, 2, 3):  # ports follow from the folder's name; another cluster may have them
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="slurm")))
        cluster.directory.chmod(0o755)
        try:
            cluster.control("start")
            break
        except RuntimeError:
            shutil.rmtree(cluster.directory, ignore_errors=True)
            if attempt == 3:
                raise
    yield cluster
    cluster.control("stop")
    shutil.rmtree(cluster.directory, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, found by this process and its children; jobs that a test leaves are ended."""
    for name, value in running_cluster.environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        monkeypatch.delenv(name)
    yield running_cluster
    left = running_cluster.queue()
    if left:
        subprocess.run(["scancel", "--quiet", *left], check=False, timeout=60)
    running_cluster.wait_empty(60)

"""What sweeps on SLURM cost beside training: the tests' private cluster, tiny model, CPU.

Seconds of wall time. Submitting: the whole command, composing included, whose jobs are held; given
again, it finds all of them in the queue. A finished run: what its command, or its job, takes to see
that there is nothing to do. First batch: until the first line of the curve is written. Steps lost:
made when the process was told or killed, and made again; a checkpoint every 4 steps.
`SUBMITTED=1,100,1000` chooses the sizes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from segsweep.base.owner import owner_of
from tests.runs import TINY, logged_steps, the_run
from tests.slurm.conftest import PROGRAMS, SBIN, Cluster

SIZES = [int(size) for size in os.environ.get("SUBMITTED", "1,100").split(",")]
HELD = ["-m", "hydra/launcher=slurm", "hydra.launcher.sbatch={hold: true}"]
ALONE = ["-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", *TINY]
LONG = [*TINY, "data.train=40", "io.save_every=4"]  # 10 steps an epoch
SIGNALS = {"time limit": signal.SIGUSR2, "preempted": signal.SIGTERM, "kill -9": signal.SIGKILL}
REPETITIONS = 3


def rows() -> list[dict[str, object]]:
    if any(not shutil.which(name, path=SBIN) for name in PROGRAMS):
        return [{"what": "no SLURM on this machine", "seconds": ""}]
    with private_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        cases = {
            **finished(cluster, Path(folder) / "one"),
            **beginning(cluster, Path(folder)),
        }
        for size in SIZES:
            cases |= submitting(cluster, Path(folder) / f"held{size}", size)
        table: list[dict[str, object]] = [{"what": k, "seconds": v} for k, v in cases.items()]
        for what, signum in SIGNALS.items():
            steps = steps_lost(Path(folder) / signum.name, signum)
            table.append({"what": f"interrupted: {what}", "steps lost": steps})
    return table


@contextmanager
def private_cluster() -> Iterator[Cluster]:
    """A cluster that this process and its children find."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="slurm")))
    cluster.directory.chmod(0o755)
    before = dict(os.environ)
    os.environ |= cluster.environment
    cluster.control("start")
    try:
        yield cluster
    finally:
        cluster.control("stop")
        shutil.rmtree(cluster.directory, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)


def seconds(cluster: Cluster, *words: str, cwd: Path) -> float:
    """Return the wall time of a command."""
    start = time.perf_counter()
    process = cluster.segsweep(*words, cwd=cwd)
    if process.returncode:
        raise RuntimeError(process.stderr)
    return time.perf_counter() - start


def submitting(cluster: Cluster, folder: Path, size: int) -> dict[str, float]:
    folder.mkdir()
    runs = "1 run" if size == 1 else f"{size:,} runs"
    words = [*HELD, f"seed=range({size})"]
    cases = {
        f"submit {runs}": seconds(cluster, *words, cwd=folder),
        f"the same command again, {runs} pending": seconds(cluster, *words, cwd=folder),
        f"status of {runs} pending": seconds(cluster, "status", cwd=folder),
    }
    cases |= {f"cancel {runs}": seconds(cluster, "cancel", "--all", cwd=folder)}
    cluster.wait_empty()
    return cases


def finished(cluster: Cluster, folder: Path) -> dict[str, float]:
    """What one finished run costs."""
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "segsweep", *TINY], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    directory = str(the_run(folder))
    cases = {"skip a finished run: its command": TINY, "the same in a job": ["work", directory]}
    return {
        name: median(seconds(cluster, *words, cwd=folder) for _ in range(REPETITIONS))
        for name, words in cases.items()
    }


def beginning(cluster: Cluster, folder: Path) -> dict[str, float]:
    """How long a job takes to its first batch."""
    job, process, submission = [], [], []
    for i in range(REPETITIONS):
        (working_folder := folder / f"first{i}").mkdir()
        submitted = time.time()
        cluster.segsweep(*ALONE, cwd=working_folder)
        run = the_run(working_folder)
        curve = run / "metrics.jsonl"
        cluster.wait(lambda curve=curve: curve.exists() and curve.read_text().count("\n") > 0)
        first = json.loads(curve.read_text().splitlines()[0])["time"]
        owner = (owner_of(run) or {})["started"]
        number = json.loads((run / "job.json").read_text())["id"]
        job_facts = subprocess.run(
            ["scontrol", "show", "job", number], capture_output=True, text=True
        )
        started = job_facts.stdout.partition("StartTime=")[2].split()[0]
        job.append(first - time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%S")))
        process.append(first - owner)
        submission.append(first - submitted)
        cluster.wait_empty()
    return {
        "command line to first batch": median(submission),
        "start of the job to first batch (to the second)": median(job),
        "of it, from owning the folder": median(process),
    }


def steps_lost(folder: Path, signum: int) -> int:
    """Interrupt a run behind its 7th step; return how many steps its checkpoint is behind."""
    import torch

    folder.mkdir()
    command = [sys.executable, "-m", "segsweep", *LONG]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while logged_steps(folder) < 7:
        time.sleep(0.01)
    process.send_signal(signum)
    process.wait()
    last = torch.load(the_run(folder) / "last.ckpt", weights_only=True)
    return logged_steps(folder) - last["global_step"]

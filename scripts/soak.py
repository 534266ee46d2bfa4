"""Sweeps under random faults, on a private SLURM cluster: is every run done, once, and unharmed?

    python -m scripts.soak --minutes 10 --seed 0

Two kinds of runs (tests/slurm/counted.py): sleeping ones, which do all that a run does except to
train (four seconds of sleep, no torch), and real ones, whose weights, metrics and curves must be
those of undisturbed runs to the last bit. While the faults last, the same command lines are given
again now and then; afterwards, until nothing is left to submit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from segsweep.base.files import read_json
from segsweep.base.owner import owner_of
from segsweep.base.process import is_live
from tests.slurm.conftest import Cluster
from tests.slurm.counted import LAUNCHER, marks
from tests.slurm.test_faults import results, table

SLEEPING = ["peft=frozen", "model.weights=null"]
REAL = [
    "peft=lora", "data.train=16", "data.val=8", "hparams.batch_size=4", "hparams.epochs=3",
    "hparams.lr=0.01", "io.log_every=1", "io.save_every=1",
]  # fmt: skip
JOBS = ["-m", *LAUNCHER, "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=low"]
SLICE = 25  # sleeping runs of one command line
PAUSE = (0.5, 3.0)  # seconds between two faults
PATIENCE = 300  # seconds for the queue to become empty
WEIGHTS = {
    "kill -9 of a step": 5, "scancel": 3, "scontrol requeue": 3, "time limit near": 3,
    "preemption": 1, "node crash": 1, "controller down": 1, "login process killed": 3,
    "two commands at once": 1, "the same command": 3,
}  # fmt: skip


class Soak:
    """Command lines in two folders, a cluster, and what is done to it."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int, sleeping: int, real: int) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)
        self.down: dict[str, float] = {}  # nodes, and when they come back
        self.counts: Counter[str] = Counter()
        self.sleeping, self.real = folder / "sleeping", folder / "real"
        self.lines: list[tuple[Path, list[str]]] = []
        for first in range(0, sleeping, SLICE):
            seeds = f"seed=range({first},{min(first + SLICE, sleeping)})"
            self.lines.append((self.sleeping, [*JOBS, *SLEEPING, seeds]))
        grid = [f"seed=range({real // 2})"]
        self.lines += [(self.real, [*JOBS, *REAL, f"peft.rank={r}", *grid]) for r in (2, 4)]
        self.total = sleeping + 2 * (real // 2)
        self.grid = [*REAL, "peft.rank=2,4", *grid]
        for path in (self.sleeping, self.real):
            path.mkdir(parents=True)

    def runs(self) -> list[Path]:
        """Return the run directories of both folders."""
        return [run for f in (self.sleeping, self.real) for run in f.glob("results/runs/[!.]*")]

    def done(self) -> int:
        """Return how many runs have a record."""
        return sum((run / "record.json").exists() for run in self.runs())

    def give(self, line: tuple[Path, list[str]]) -> subprocess.Popen[str]:
        """Give a command line, as somebody on the login node does."""
        folder, words = line
        command = [sys.executable, "-m", "segsweep", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)

    def submitted(self, line: tuple[Path, list[str]]) -> int:
        """Give a command line; return how many runs it submitted."""
        process = self.give(line)
        output = process.communicate(timeout=PATIENCE)[0]
        if process.returncode:
            raise RuntimeError(output)
        return int(output.partition("submitted ")[2].split()[0]) if "submitted" in output else 0

    def harm(self) -> None:
        """Do one fault, drawn by its weight; what has nothing to act upon is not counted."""
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        queue = self.cluster.queue()
        running = [job for job, state in queue.items() if state == "RUNNING"]
        if kind == "kill -9 of a step":
            owners = [owner_of(run) for run in self.runs()]
            alive = [owner["pid"] for owner in owners if owner and is_live(owner)]
            if not alive:
                return
            os.kill(self.rng.choice(alive), signal.SIGKILL)
        elif kind == "scancel":
            if not queue:
                return
            ask("scancel", self.rng.choice(list(queue)))
        elif kind in ("scontrol requeue", "time limit near"):
            if not running:
                return
            command = ("scontrol", "requeue") if "requeue" in kind else ("scancel", "--signal=USR2")
            ask(*command, self.rng.choice(running))
        elif kind == "preemption":
            ask("sbatch", "--partition=main", "--nodes=1", "--exclusive", "--output=/dev/null",
                "--job-name=intruder", "--wrap=sleep 1")  # fmt: skip
        elif kind == "node crash":
            node = self.rng.choice(["n1", "n2", "n3"])
            if self.down:
                return
            self.cluster.control("crash", node)
            self.down[node] = time.monotonic() + self.rng.uniform(0, 40)
        elif kind == "controller down":
            self.cluster.control("ctld-down")
            time.sleep(self.rng.uniform(0, 10))
            self.cluster.control("ctld-up")
        elif kind == "login process killed":
            process = self.give(self.rng.choice(self.lines))
            time.sleep(self.rng.uniform(0.3, 5))
            if process.poll() is not None:
                kind = "the same command"
            elif self.rng.random() < 0.5:
                process.kill()  # sbatch may live on
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        elif kind == "two commands at once":
            line = self.rng.choice(self.lines)
            for process in [self.give(line), self.give(line)]:
                process.communicate(timeout=PATIENCE)
        else:
            self.submitted(self.rng.choice(self.lines))
        self.counts[kind] += 1

    def revive(self, everything: bool = False) -> None:
        """Start the nodes again whose time has come."""
        for node, when in list(self.down.items()):
            if everything or time.monotonic() > when:
                self.cluster.control("revive", node)
                del self.down[node]

    def disturb(self, minutes: float) -> None:
        """Give the command lines one by one and do harm, until the time is over or all is done."""
        waiting = [self.lines[i] for i in self.rng.sample(range(len(self.lines)), len(self.lines))]
        started = reported = time.monotonic()
        while time.monotonic() < started + 60 * minutes and self.done() < self.total:
            if waiting and len(self.cluster.queue()) < SLICE:
                self.submitted(waiting.pop())
            time.sleep(self.rng.uniform(*PAUSE))
            self.revive()
            self.harm()
            if time.monotonic() > reported + 30:
                reported = time.monotonic()
                faults = self.counts.total() - self.counts["the same command"]
                progress = f"{faults} faults, {self.done()} of {self.total} done"
                print(f"  {reported - started:.0f} s: {progress}", flush=True)
        self.revive(everything=True)

    def finish(self) -> int:
        """Give all command lines again until they submit nothing; return how often."""
        rounds = 0
        while True:
            rounds += 1
            submitted = sum(self.submitted(line) for line in self.lines)
            print(f"  round {rounds}: {submitted} submitted, {self.done()} done", flush=True)
            if not submitted and not self.cluster.queue():
                return rounds
            self.cluster.wait_empty(PATIENCE)


def ask(*command: str) -> None:
    """Run a SLURM program; not our matter if a job has just ended, or its node does not answer."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, check=False, capture_output=True, timeout=5)


def undisturbed(folder: Path, grid: list[str]) -> None:
    """Train the real runs on this machine, without SLURM and faults."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "segsweep", "-m", "hydra/launcher=local", *grid]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=env)


def report(soak: Soak, reference: Path) -> dict[str, int]:
    """Compare and count."""
    runs, counts = soak.runs(), Counter[str]()
    counts["runs"] = len(runs)
    counts["runs lost"] = soak.total - len(runs)
    for run in runs:
        record, done = read_json(run / "record.json"), len(marks(run, "done"))
        counts["runs lost"] += record is None
        counts["runs done twice"] += done > 1
        counts["published, killed before it was noted"] += record is not None and done == 0
        kind = "real" if soak.real in run.parents else "sleeping"
        counts[f"attempts that began, of {kind} runs"] += len(marks(run, "begun"))
        counts["submissions"] += json.loads((run / "job.json").read_text())["attempts"]
        counts["files of killed processes left"] += len(list(run.glob(".*")))
        undisturbed_run = reference / run.relative_to(soak.real) if kind == "real" else None
        counts["real runs unlike the undisturbed ones"] += (
            undisturbed_run is not None
            and record is not None
            and results(run) != results(undisturbed_run)
        )
    for folder in (soak.real, reference):
        command = [sys.executable, "-m", "segsweep", "collect"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for name in ("ablation.md", "ablation.csv"):
        counts["tables that differ"] += table(soak.real, name) != table(reference, name)
    return dict(counts)


def main() -> int:
    """Soak; 1 if a run was lost, done twice or harmed."""
    parser = argparse.ArgumentParser("python -m scripts.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=10, help="of faults, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sleeping", type=int, default=200, help="runs")
    parser.add_argument("--real", type=int, default=24, help="runs")
    parser.add_argument("--undisturbed", type=Path, help="the real runs of an earlier soak")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    folder.chmod(0o755)
    cluster = Cluster(folder / "slurm")
    soak = Soak(cluster, folder, options.seed, options.sleeping, options.real)
    os.environ |= cluster.environment | {"COUNTED_SECONDS": "4"}
    os.environ["GIT_DIR"] = "/nowhere"  # commits that are made meanwhile would show in tables
    reference = options.undisturbed or folder / "undisturbed"
    print(f"in {folder}: {options.real} undisturbed runs in {reference}", flush=True)
    if not reference.exists():
        undisturbed(reference, soak.grid)
    cluster.control("start")
    start = time.monotonic()
    try:
        soak.disturb(options.minutes)
        rounds = soak.finish()
    finally:
        cluster.control("stop")
    counts = report(soak, reference)
    counts |= {"rounds of the same commands afterwards": rounds}
    counts |= {"seconds": round(time.monotonic() - start)}
    for name, count in [*sorted(soak.counts.items()), *counts.items()]:
        print(f"| {name} | {count} |")
    bad = ("runs lost", "runs done twice", "real runs unlike the undisturbed ones",
           "tables that differ")  # fmt: skip
    if any(counts[name] for name in bad):
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Sweeps under random faults, on a private SLURM cluster: is every run done, once, and unharmed?

    python -m scripts.soak --minutes 10 --seed 0

Two kinds of runs (tests/slurm/counted.py): sleeping ones, which do all that a run does except to
train (four seconds of sleep, no torch), and real ones, whose weights, metrics and curves must be
those of undisturbed runs to the last bit. Jobs believe that each node is a machine of its own, and
pull workers train beside them. While the faults last, the same command lines are given
again now and then; afterwards, until nothing is left to submit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.soak_faults import PATIENCE, WEIGHTS, worker
from segsweep.base.files import read_json
from tests.slurm.conftest import Cluster
from tests.slurm.counted import LAUNCHER, marks
from tests.slurm.test_faults import results, table

SLEEPING = ["peft=frozen", "model.weights=null", "io.sweep=sleeping"]
REAL = [
    "peft=lora", "data.train=16", "data.val=8", "hparams.batch_size=4", "hparams.epochs=3",
    "hparams.lr=0.01", "io.log_every=1", "io.save_every=1", "io.sweep=real",
]  # fmt: skip
JOBS = ["-m", *LAUNCHER, "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=low"]
SLICE = 25  # sleeping runs of one command line
PAUSE = (0.5, 3.0)  # seconds between two faults
BAD = (
    "runs lost", "runs done twice", "runs with other files than their record's",
    "real runs unlike the undisturbed ones", "tables that differ",
    "jobs of others that were cancelled", "runs that one damaged file has hidden",
)  # fmt: skip
WORKERS = 5  # that pull runs, beside the jobs


Line = tuple[Path, list[str]]  # a folder, and what is typed there


class Soak:
    """Command lines in two folders, a cluster, and what is done to it."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int, sleeping: int, real: int) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)
        self.down: dict[str, float] = {}  # nodes, and when they come back
        self.asleep: list[tuple[float, list[int]]] = []  # processes, and when they wake up
        self.workers: list[subprocess.Popen[bytes]] = []
        self.counts: Counter[str] = Counter()
        self.sleeping, self.real = folder / "sleeping", folder / "real"
        self.lines: list[Line] = []
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

    def jobs(self, state: str = "") -> list[str]:
        """Return the jobs that wait or run, or those in a state."""
        return [job for job, now in self.cluster.queue().items() if now == (state or now)]

    def give(self, line: Line, user: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Give a command line, as somebody on the login node does."""
        folder, words = line
        command = [*user, sys.executable, "-m", "segsweep", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)

    def segsweep(self, folder: Path, *words: str, status: Sequence[int] = (0,)) -> str:
        """Give a command; return what it prints. Raises RuntimeError for any other exit status."""
        process = self.give((folder, list(words)))
        output = process.communicate(timeout=PATIENCE)[0]
        if process.returncode not in status:
            raise RuntimeError(f"{' '.join(words)}: status {process.returncode}\n{output}")
        return output

    def submitted(self, line: Line) -> int:
        """Give a command line; return how many runs it submitted."""
        output = self.segsweep(line[0], *line[1])
        return int(output.partition("submitted ")[2].split()[0]) if "submitted" in output else 0

    def stranger(self) -> str:
        """Submit a job of somebody else; return its id."""
        words = [
            "sbatch",
            "--parsable",
            "--output=/dev/null",
            "--comment=another",
            "--wrap=sleep 60",
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def hire(self) -> None:
        """Keep as many pull workers as there shall be, of either sweep in turn."""
        self.workers = [w for w in self.workers if w.poll() is None]
        while len(self.workers) < WORKERS:
            folder = self.rng.choice([self.sleeping, self.real])
            if not any((folder / "results" / "sweeps").glob("*")):
                return
            self.workers.append(worker(folder, folder.name))

    def dismiss(self) -> None:
        """End the pull workers that are left."""
        for process in self.workers:
            process.terminate()
        for process in self.workers:
            process.wait(PATIENCE)

    def harm(self) -> None:
        """Do one fault, drawn by its weight; what has nothing to act upon is not counted."""
        (fault,) = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if fault(self):
            self.counts[fault.__name__.replace("_", " ")] += 1

    def revive(self, everything: bool = False) -> None:
        """Start the nodes again, and wake up the processes, whose time has come."""
        now = time.monotonic()
        for node, when in list(self.down.items()):
            if everything or now > when:
                self.cluster.control("revive", node)
                del self.down[node]
        for when, pids in list(self.asleep):
            if everything or now > when:
                self.asleep.remove((when, pids))
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

    def disturb(self, minutes: float) -> None:
        """Give the command lines one by one and do harm, until the time is over or all is done."""
        waiting = [self.lines[i] for i in self.rng.sample(range(len(self.lines)), len(self.lines))]
        started = reported = time.monotonic()
        while time.monotonic() < started + 60 * minutes and self.done() < self.total:
            if waiting and len(self.cluster.queue()) < SLICE:
                self.submitted(waiting.pop())
            time.sleep(self.rng.uniform(*PAUSE))
            self.revive()
            self.hire()
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
            if not submitted and not self.cluster.queue() and not self.draining():
                return rounds
            self.cluster.wait(lambda: not self.cluster.queue() and not self.draining(), PATIENCE)

    def draining(self) -> bool:
        """Say whether pull workers are still at work; they leave when nothing is left."""
        return self.done() < self.total and any(w.poll() is None for w in self.workers)


def held(run: Path, record: dict[str, Any]) -> bool:
    """Say whether the files of a run are those that its record describes."""
    return all(
        hashlib.sha256((run / name).read_bytes()).hexdigest() == facts["sha256"]
        for name, facts in record["files"].items()
    )


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
        counts["submissions"] += (read_json(run / "job.json") or {"attempts": 0})["attempts"]
        counts["runs with other files than their record's"] += bool(record) and not held(
            run, record
        )
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
    os.umask(0)  # two users share the folders
    cluster = Cluster(folder / "slurm")
    soak = Soak(cluster, folder, options.seed, options.sleeping, options.real)
    os.environ |= cluster.environment | {"COUNTED_SECONDS": "4"}
    os.environ["OMP_NUM_THREADS"] = "1"  # workers would take two, which changes the last bits
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
        soak.revive(everything=True)
        soak.dismiss()
        cluster.control("stop")
    counts = {**soak.counts, **report(soak, reference)}
    counts |= {"rounds of the same commands afterwards": rounds}
    counts |= {"seconds": round(time.monotonic() - start)}
    for name, count in counts.items():
        print(f"| {name} | {count} |")
    if any(counts.get(name) for name in BAD):
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The faults of a soak: each does one harm to a cluster, or says that there was nothing to harm."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.owner import owner_of
from segsweep.base.process import process_started
from tests.slurm.counted import PYTHON
from tests.test_pull import START

if TYPE_CHECKING:
    from scripts.soak import Soak

PATIENCE = 300  # seconds for a command, and for the queue to become empty
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")  # a second user
GARBAGE = b'\xff{"id": [[[['


def kill_of_a_step(soak: Soak) -> bool:
    """SIGKILL the process of a run, of a job or of a pull worker."""
    alive = living(soak)
    if alive:
        os.kill(soak.rng.choice(alive), signal.SIGKILL)
    return bool(alive)


def scancel(soak: Soak) -> bool:
    """End a job that waits or runs."""
    queue = soak.jobs()
    if queue:
        ask("scancel", soak.rng.choice(queue))
    return bool(queue)


def scontrol_requeue(soak: Soak) -> bool:
    """Let SLURM begin a job anew."""
    return _to_a_running_job(soak, "scontrol", "requeue")


def time_limit_near(soak: Soak) -> bool:
    """Send the signal that SLURM sends before the time limit."""
    return _to_a_running_job(soak, "scancel", "--signal=USR2")


def preemption(soak: Soak) -> bool:
    """Submit a job that takes a whole node."""
    ask("sbatch", "--partition=main", "--nodes=1", "--exclusive", "--output=/dev/null",
        "--job-name=intruder", "--wrap=sleep 1")  # fmt: skip
    return True


def node_crash(soak: Soak) -> bool:
    """Take the power of a node."""
    return _lose_a_node(soak, "crash")


def node_taken_for_dead(soak: Soak) -> bool:
    """Lose a node whose processes sleep; they wake up when others have taken over their runs."""
    return _lose_a_node(soak, "freeze")


def controller_down(soak: Soak) -> bool:
    """Let nobody answer for a while."""
    soak.cluster.control("ctld-down")
    time.sleep(soak.rng.uniform(0, 10))
    soak.cluster.control("ctld-up")
    return True


def controller_forgets(soak: Soak) -> bool:
    """Let the ids of jobs begin again, for jobs of somebody else; ours are to be cancelled."""
    soak.cluster.control("forget")
    strangers = [soak.stranger() for _ in range(5)]
    soak.segsweep(soak.rng.choice(soak.lines)[0], "cancel", "--all", status=(0, 1))
    gone = [job for job in strangers if job not in soak.cluster.queue()]
    soak.counts["jobs of others that were cancelled"] += len(gone)
    for job in strangers:
        ask("scancel", job)
    return True


def login_process_killed(soak: Soak) -> bool:
    """Kill a command while it submits, with its sbatch or without."""
    process = soak.give(soak.rng.choice(soak.lines))
    time.sleep(soak.rng.uniform(0.3, 5))
    early = process.poll() is None
    if early and soak.rng.random() < 0.5:
        process.kill()  # sbatch may live on
    elif early:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return early


def two_commands_at_once(soak: Soak) -> bool:
    """Give one command line twice in the same instant."""
    line = soak.rng.choice(soak.lines)
    for process in [soak.give(line), soak.give(line)]:
        process.communicate(timeout=PATIENCE)
    return True


def two_users_at_once(soak: Soak) -> bool:
    """Give one command line as two users."""
    line = soak.rng.choice(soak.lines)
    for process in [soak.give(line), soak.give(line, NOBODY)]:
        process.communicate(timeout=PATIENCE)
    return True


def pull_worker_killed(soak: Soak) -> bool:
    """SIGKILL a worker, with the run that it trains or without; another one takes its place."""
    worker = soak.rng.choice(soak.workers)
    if soak.rng.random() < 0.5:
        worker.kill()
    else:
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    soak.hire()
    return True


def damaged_file(soak: Soak) -> bool:
    """Damage a file of a run; verbs over all runs must go on, and the file is repaired."""
    name = soak.rng.choice(
        ["job.json", "failed.json", "record.json", "config.yaml", "metrics.jsonl"]
    )
    files = [path for run in soak.runs() if (path := run / name).is_file()]
    if name == "metrics.jsonl":  # lines are added to that of a run that goes on
        files = [path for path in files if (path.parent / "record.json").exists()]
    if not files:
        return False
    path = soak.rng.choice(files)
    content = path.read_bytes()
    path.write_bytes(GARBAGE)
    folder = path.parents[3]
    shown = soak.segsweep(folder, "status", "--json").count('"run":')
    soak.counts["runs that one damaged file has hidden"] += max(
        0, sum(folder in run.parents for run in soak.runs()) - shown
    )
    if path.read_bytes() == GARBAGE:  # nobody has written it anew meanwhile
        path.write_bytes(content)
    return True


def the_same_command(soak: Soak) -> bool:
    """Give a command line again."""
    soak.submitted(soak.rng.choice(soak.lines))
    return True


WEIGHTS: dict[Callable[[Soak], bool], int] = {
    kill_of_a_step: 5, scancel: 3, scontrol_requeue: 3, time_limit_near: 3, preemption: 1,
    node_crash: 1, node_taken_for_dead: 3, controller_down: 1, controller_forgets: 1,
    login_process_killed: 3, two_commands_at_once: 1, two_users_at_once: 2, pull_worker_killed: 4,
    damaged_file: 3, the_same_command: 3,
}  # fmt: skip


def living(soak: Soak) -> list[int]:
    """Return the processes that own runs now; their host names differ, their numbers do not."""
    owners = [owner for run in soak.runs() if (owner := owner_of(run))]
    return [o["pid"] for o in owners if process_started(o["pid"]) == o["started_ticks"]]


def ask(*command: str) -> str:
    """Run a SLURM program; not our matter if a job has just ended, or its node does not answer."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
        return done.stdout.strip()
    return ""


def _to_a_running_job(soak: Soak, *command: str) -> bool:
    running = soak.jobs("RUNNING")
    if running:
        ask(*command, soak.rng.choice(running))
    return bool(running)


def _lose_a_node(soak: Soak, how: str) -> bool:
    """Lose a node, if all are there; it comes back in up to 40 seconds, what sleeps in up to 80."""
    if soak.down:
        return False
    node = soak.rng.choice(["n1", "n2", "n3"])
    sleeping = [int(pid) for pid in soak.cluster.control(how, node).split() if pid.isdigit()]
    now = time.monotonic()
    soak.down[node] = now + soak.rng.uniform(0, 40)
    if sleeping:
        soak.asleep.append((now + soak.rng.uniform(20, 80), sleeping))
    return True


def worker(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a pull worker of a sweep, whose runs are counted, in a process group of its own."""
    python = folder / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
        python.chmod(0o755)
    with (folder / "workers.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", START, str(python), "work", "--sweep", name],
            cwd=folder,
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

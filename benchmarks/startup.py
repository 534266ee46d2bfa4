"""Start-up: composing, planning, starting runs, and the verbs that read files of many runs.

CPU seconds of whole processes with all that they start, on one thread, median of the repetitions.
A run here is one batch of four small pictures, one validation and one evaluation; importing torch
and one step of AdamW, which no run does without, stands beside for scale. `RUNS=100000` reads so
many records (they take 0.5 GB and some minutes to write), once.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks._sides import THREADS
from tests.records import record, write

REPETITIONS = 3
RUNS = int(os.environ.get("RUNS", "1000"))
DOMAINS = ("source", "clean", "clutter", "xray", "street")
RANKS = (2, 4, 8, 16)
SEGSWEEP = (sys.executable, "-m", "segsweep")
STEP = """
import torch
layer = torch.nn.Linear(4, 4)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 4)).sum().backward()
optimizer.step()
"""
TINY = (
    *("data.train=4", "data.val=4", "hparams.epochs=1", "hparams.batch_size=4", "peft.rank=2"),
    *("model.weights=null", "trainer.accelerator=cpu", "io.progress=false"),
)
SWEEP = ("-m", "peft.rank=2,4,8,16,32", "hparams.lr=1e-4,2e-4,3e-4,4e-4,5e-4", "seed=range(40)")
MORE = 4


def rows() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        write_runs(results, RUNS)
        read = ("--results", folder)
        commands = {
            "empty Python process": (sys.executable, "-c", "pass"),
            "segsweep --cfg job": (*SEGSWEEP, "--cfg", "job"),
            "segsweep plan, 1,000 runs": (*SEGSWEEP, "plan", *SWEEP),
            f"segsweep status, {RUNS:,} runs": (*SEGSWEEP, "status", *read),
            f"segsweep collect, {RUNS:,} runs": (*SEGSWEEP, "collect", *read),
            f"segsweep plan, one run beside {RUNS:,}": (*SEGSWEEP, "plan", f"io.results={folder}"),
        }
        repetitions = REPETITIONS if RUNS < 10_000 else 1
        table = [
            (name, median(seconds(c) for _ in range(repetitions))) for name, c in commands.items()
        ]
    return [{"process": name, "CPU s": spent} for name, spent in [*table, *starts()]]


def starts() -> list[tuple[str, float]]:
    """Measure runs as commands of their own and in a sweep, in turns."""
    floor, alone, one, many = [], [], [], []
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory() as folder:
            words = (*TINY, f"io.results={folder}")
            sweep = (*SEGSWEEP, "-m", *words, "hydra.launcher.workers=1")
            floor.append(seconds((sys.executable, "-c", STEP)))
            alone.append(seconds((*SEGSWEEP, *words)))
            one.append(seconds((*sweep, "seed=1")))
            many.append(seconds((*sweep, f"seed=range(2,{3 + MORE})")))
    return [
        ("import torch, one step of AdamW", median(floor)),
        ("a run as a command", median(alone)),
        ("a sweep of one run", median(one)),
        ("every further run of a sweep", (median(many) - median(one)) / MORE),
    ]


def seconds(command: Sequence[str]) -> float:
    """Return the CPU time of a process and of all that it has waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | THREADS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_runs(results: Path, runs: int) -> None:
    """Write records of a sweep: methods x ranks x data sets x seeds."""
    settings = [("lora", "rank", r) for r in RANKS] + [("adapter", "repeats", i) for i in (1, 2, 3)]
    settings.append(("full_head", "lr", 1e-4))
    for i in range(runs):
        seed, cell = divmod(i, len(settings) * len(DOMAINS))
        (peft, key, value), domain = settings[cell // len(DOMAINS)], DOMAINS[cell % len(DOMAINS)]
        trained = 10_000 * (1 + cell // len(DOMAINS))
        ap = 40 + cell % 7 + seed % 3
        options = {"seed": seed, "domain": domain, "trainable": trained, key: value}
        write(results, record(peft, ap, **options))

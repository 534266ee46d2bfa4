"""Start-up of whole processes: composing a config, and the verbs that read files of 1,000 runs.

Seconds of wall time, median of the repetitions; importing torch stands beside it for scale.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.records import record, write

REPETITIONS = 5
RUNS = 1000
DOMAINS = ("source", "clean", "clutter", "xray", "street")
RANKS = (2, 4, 8, 16)


def rows() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        write_runs(results, RUNS)
        segsweep = (sys.executable, "-m", "segsweep")
        commands = {
            "empty Python process": (sys.executable, "-c", "pass"),
            "segsweep --cfg job": (*segsweep, "--cfg", "job"),
            f"segsweep status, {RUNS} runs": (*segsweep, "status", "--results", folder),
            f"segsweep collect, {RUNS} runs": (*segsweep, "collect", "--results", folder),
            "import torch": (sys.executable, "-c", "import torch"),
        }
        return [{"process": name, "seconds": seconds(line)} for name, line in commands.items()]


def seconds(command: Sequence[str]) -> float:
    """Return the median wall time of a process, after one that fills the caches."""
    times = []
    for _ in range(REPETITIONS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return median(times[1:])


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

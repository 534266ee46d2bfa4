"""Two ways to the same result side by side: each in processes of its own, in turns.

Times are CPU times on one thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.__main__ import markdown

ROUNDS = 2
THREADS = {"OMP_NUM_THREADS": "1"}
# what is freed goes back to the system at once: the process is as large as its live tensors
FRUGAL = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def rows(module: str, cases: Sequence[str], sides: Sequence[str]) -> list[dict[str, Any]]:
    """Run `python -m module case side`, which prints the JSON of `measure`, in turns.

    Times are medians over the rounds. Peak memory is that of one more process.
    """
    table = []
    for case in cases:
        rounds = [{side: in_process(module, case, side) for side in sides} for _ in range(ROUNDS)]
        for side in sides:
            row: dict[str, Any] = {"case": case, "side": side}
            for name in rounds[0][side]["ms"]:
                row[f"{name} ms"] = median(ms for r in rounds for ms in r[side]["ms"][name])
            frugal = in_process(module, case, side, **FRUGAL)
            table.append(row | {"peak MiB": frugal["mib"]} | frugal.get("result", {}))
    return table


def in_process(module: str, case: str, side: str, **environment: str) -> dict[str, Any]:
    """Return what `python -m module case side` prints, on one thread."""
    command = [sys.executable, "-m", module, case, side]
    env = os.environ | THREADS | environment
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env)
    return json.loads(process.stdout.splitlines()[-1])


def measure(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Milliseconds of each of the steps, taken in order `repeats` times, and memory added at most.

    The first round is not counted; a process that measures memory makes no other.
    """
    before, times = memory("VmRSS"), {name: [] for name in steps}
    if os.environ.items() >= FRUGAL.items():
        repeats = 0
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - start))
    ms = {name: values[1:] for name, values in times.items()}
    return {"ms": ms, "mib": memory("VmHWM") - before}


def main(run: Callable[[str, str], Any], rows: Callable[[], list[dict[str, Any]]]) -> None:
    """Be one side of a case, where both are named on the command line; else print the table."""
    if len(sys.argv) == 3:
        print(json.dumps(run(*sys.argv[1:])))
    else:
        print(markdown(rows()))


def memory(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)

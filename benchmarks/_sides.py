"""Two ways to the same result side by side: each in processes of its own, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 3


def rows(module: str, cases: Sequence[str], sides: Sequence[str]) -> list[dict[str, Any]]:
    """Run `python -m module case side` in turns and compare medians and peaks.

    Every process prints the JSON of `measure`.
    """
    table = []
    for case in cases:
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side in sides:
                command = [sys.executable, "-m", module, case, side]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[side].append(json.loads(out.splitlines()[-1]))
        for side, results in found.items():
            row: dict[str, Any] = {"case": case, "side": side}
            for name in results[0]["ms"]:
                row[f"{name} ms"] = median(ms for result in results for ms in result["ms"][name])
            row["CPU ms"] = median(ms for result in results for ms in result["cpu"])
            row["peak MiB"] = median(result["mib"] for result in results)
            table.append(row | results[0].get("result", {}))
    return table


def measure(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Wall milliseconds of each of the steps, taken in order `repeats` times, after one warm-up.

    With it go the CPU time of all steps together, for a machine that is not idle, and the most
    memory that was added.
    """
    before, wall, cpu = memory("VmRSS"), {name: [] for name in steps}, []
    for _ in range(repeats + 1):
        started = time.process_time()
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            wall[name].append(1e3 * (time.perf_counter() - begun))
        cpu.append(1e3 * (time.process_time() - started))
    ms = {name: taken[1:] for name, taken in wall.items()}
    return {"ms": ms, "cpu": cpu[1:], "mib": memory("VmHWM") - before}


def memory(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)

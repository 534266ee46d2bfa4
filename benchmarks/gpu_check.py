"""What a GPU does with this program, in at most eight minutes: `make gpu-check`.

Each block is a process of its own with a budget of seconds, for an error of a kernel spoils all
that follows in its process. The JSON file is written after every block, so one that is cut off
loses no other; rows that it printed before are kept. `--tiny` measures the same with the tiny
models, on a CPU all but what needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

TOTAL = 480  # seconds of all blocks together


@dataclass(frozen=True)
class Block:
    """A generator of rows, `benchmarks._gpu.MODULE.NAME`, and the seconds that it may take."""

    module: str
    name: str
    seconds: float
    cuda: bool = False  # whether it measures nothing without a GPU

    def rows(self) -> Callable[..., Iterator[dict[str, Any]]]:
        """Return the generator; it is given a `Scale`."""
        return getattr(import_module(f"benchmarks._gpu.{self.module}"), self.name)


BLOCKS = [
    Block("numbers", "losses", 50),
    Block("numbers", "attention", 60),
    Block("steps", "waits", 30),
    Block("models", "throughput", 60),
    Block("models", "sam", 60),
    Block("steps", "steps", 130),
    Block("models", "jobs", 90, cuda=True),
]


def check(path: Path, device: str, tiny: bool, names: list[str]) -> dict[str, Any]:
    """Take the blocks named, one after the other; return what the file holds in the end."""
    report: dict[str, Any] = {"machine": facts(device), "tiny": tiny, "blocks": {}}
    end = time.monotonic() + TOTAL
    for block in (block for block in BLOCKS if block.name in names):
        print(block.name, flush=True)
        report["blocks"][block.name] = taken(block, device, tiny, end - time.monotonic())
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def taken(block: Block, device: str, tiny: bool, left: float) -> dict[str, Any]:
    """Return the rows of a block, how long it took, and why it ended if not of itself."""
    if block.cuda and device != "cuda":
        return {"skipped": "needs a GPU (CUDA)", "rows": []}
    seconds = min(block.seconds, left)
    if seconds < 5:
        return {"skipped": f"the {TOTAL} s of all blocks are over", "rows": []}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--block", block.name]
    command += ["--device", device, *(["--tiny"] if tiny else [])]
    start, ended = time.monotonic(), {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            subprocess.run(command, stdout=out, stderr=errors, timeout=seconds, check=True)
        except subprocess.TimeoutExpired:
            ended = {"error": f"cut off after {seconds:.0f} s"}
        except subprocess.CalledProcessError as error:
            errors.seek(0)
            ended = {"error": f"status {error.returncode}: {errors.read()[-500:]}"}
        out.seek(0)
        rows = [json.loads(line) for line in out if line.startswith("{") and line.endswith("}\n")]
    return {"seconds": round(time.monotonic() - start, 1), **ended, "rows": rows}


def print_rows(name: str, device: str, tiny: bool) -> None:
    """Be the process of a block: print its rows as they are measured."""
    import torch

    from benchmarks._gpu.parts import Scale

    block = next(block for block in BLOCKS if block.name == name)
    for row in block.rows()(Scale(torch.device(device), full=not tiny)):
        print(json.dumps(row), flush=True)


def facts(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    names = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }
    if device == "cuda":
        return names | {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return names | {"device": f"cpu {platform.machine()}"}


def main() -> None:
    """Write the report, or be one block."""
    import torch

    there = "cuda" if torch.cuda.is_available() else "cpu"
    names = [block.name for block in BLOCKS]
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("blocks", nargs="*", metavar="block", help=f"of {', '.join(names)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=there)
    parser.add_argument("--tiny", action="store_true", help="tiny models: does it run at all?")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--block", choices=names, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.blocks) - set(names):
        parser.error(f"no block {', '.join(sorted(unknown))} (choose from {', '.join(names)})")
    if given.device == "cpu" and not given.tiny:
        parser.error("torch finds no GPU here: --tiny measures what a CPU can, with tiny models")
    if given.block:
        print_rows(given.block, given.device, given.tiny)
    else:
        check(given.out, given.device, given.tiny, given.blocks or names)


if __name__ == "__main__":
    main()

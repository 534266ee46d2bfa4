"""How time and memory grow: with the size of images, queries, objects, rank; with the runs listed.

A step is forward, loss, backward and update of LoRA in the tiny Mask DINO, two images; rectangles
on noise, random weights. Everything but one size stays as it is: 128 x 128 pixels, 40 queries, 4
objects of an image, rank 8. CPU seconds of one thread, medians of three steps after a first one;
memory is that of the tensors that the step makes and holds at its peak. Files: CPU seconds and
peak memory of the whole process `segsweep status` over so many records.

`python -m benchmarks.growth` writes docs/growth.csv and docs/growth.png.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from benchmarks import startup
from segsweep.base.config import compose
from segsweep.bench.count import count
from segsweep.data.base import Subject
from segsweep.data.loader import Target
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups

DOCS = Path(__file__).resolve().parent.parent / "docs"
IMAGES, STEPS = 2, 3
USUAL = {"side": 128, "queries": 40, "objects": 4, "rank": 8}
SIZES = {
    "side": (64, 128, 192, 256, 384),
    "queries": (20, 40, 80, 160, 320),
    "objects": (1, 2, 4, 8, 16, 30),
    "rank": (2, 4, 8, 16, 32, 64),
}
RUNS = (100, 1000, 10000)
# a process begins with the peak of the one that starts it: this one is small
WATCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(status != 0)
"""
TITLES = {
    "side": "image side (pixels)",
    "queries": "queries",
    "objects": "objects of an image",
    "rank": "rank of LoRA",
    "runs": "runs listed by status",
}


def rows() -> Iterator[dict[str, Any]]:
    torch.set_num_threads(1)
    for what, sizes in SIZES.items():
        for size in sizes:
            yield {"what": what, "size": size} | step(**USUAL | {what: size})
    for runs in RUNS:
        yield {"what": "runs", "size": runs} | listing(runs)


def step(side: int, queries: int, objects: int, rank: int) -> dict[str, float]:
    """Return the seconds of a training step, and MiB of its tensors at the peak."""
    words = ["model=maskdino_tiny", "model.weights=null", f"model.queries={queries}", "peft=lora"]
    config = compose([*words, f"peft.rank={rank}"])
    torch.manual_seed(0)
    model = config.model.build(Subject([f"class {number}" for number in range(10)]))
    apply(model, config.peft, config.model.roles)
    groups = parameter_groups(model.train(), config.hparams, config.model.roles)
    optimizer = torch.optim.AdamW(groups)
    images, targets = torch.randn(IMAGES, 3, side, side), [scene(side, objects)] * IMAGES

    def once() -> None:
        optimizer.zero_grad()
        with parametrize.cached():
            loss = model.loss(model(images, targets), targets)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    _, peak = count(once, torch.device("cpu"))  # the first step: it is not timed
    times = []
    for _ in range(STEPS):
        start = time.process_time()
        once()
        times.append(time.process_time() - start)
    return {"seconds": median(times), "MiB": peak}


def scene(side: int, objects: int) -> Target:
    """Rectangles of a quarter of the side, anywhere."""
    centres = torch.rand(objects, 2) * 0.7 + 0.15
    boxes = torch.cat([centres, torch.full((objects, 2), 0.25)], dim=1)
    axis = (torch.arange(side) + 0.5) / side
    across, down = ((axis - centre[:, None]).abs() < 0.125 for centre in centres.T)
    return Target(torch.randint(10, (objects,)), boxes, down[:, :, None] & across[:, None])


def listing(runs: int) -> dict[str, float]:
    """Return the CPU seconds and the peak MiB of `segsweep status` over so many records."""
    with tempfile.TemporaryDirectory() as folder:
        startup.write_runs(Path(folder), runs)
        command = [sys.executable, "-m", "segsweep", "status", "--results", folder]
        watched = [sys.executable, "-c", WATCHER, *command]
        shown = subprocess.run(watched, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, kib = map(float, shown.split())
    return {"seconds": seconds, "MiB": kib / 1024}


def write(table: Iterable[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Write each row as soon as it is measured; return all."""
    kept = []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["what", "size", "seconds", "MiB"], lineterminator="\n")
        writer.writeheader()
        for row in table:
            kept.append(row)
            writer.writerow(row | {key: f"{row[key]:.4g}" for key in ("seconds", "MiB")})
            file.flush()
    return kept


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """Draw small multiples: seconds above, memory below, one column for what grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(2, len(TITLES), sharex="col")
    for column, (what, title) in enumerate(TITLES.items()):
        points = [row for row in table if row["what"] == what]
        sizes = [row["size"] for row in points]
        for line, (key, name) in enumerate((("seconds", "CPU s"), ("MiB", "peak MiB"))):
            axis = axes[line, column]
            values = [row[key] for row in points]
            axis.plot(sizes, values, "o-", color="#0072b2", markersize=4)
            axis.set_ylim(0, 1.15 * max(values))
            axis.set_xlim(left=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3)
            if column == 0 or what == "runs":
                axis.set_ylabel(name)
        axes[1, column].set_xlabel(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(write(rows(), DOCS / "growth.csv"), DOCS / "growth.png")

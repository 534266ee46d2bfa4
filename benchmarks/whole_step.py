"""A whole training step of Mask DINO against a plain formulation of it, which follows the original.

Plain: masks of all queries of all sets are dense and have a graph, deformable attention samples
each level by itself with `grid_sample`, feed-forwards keep their hidden layer, gradients stay until
the next step begins. Both take the steps of one model in turns in one process (CPU time on one
thread; ratios are of the same round) and must give the same loss. Memory is that of processes of
their own: the peaks of a first and a second step, less what the process was before the model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks import _sides
from benchmarks.criterion import Dense
from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.data.loader import TrainLoader
from segsweep.loss.maskdino import MaskDINOCriterion
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups
from tests.reference import read_by_level

SIDES = ["plain", "segsweep"]
R50 = ["model=maskdino_r50", "hparams.batch_size=1", "data.side=512", "data.size=[512,512]"]
CASES = {"R50, 1 x 512 x 512, head": [*R50, "peft=full_head"],
         "R50, 1 x 512 x 512, lora r=8": [*R50, "peft=lora"]}  # fmt: skip
ROUNDS = 1


def feed_forward(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """What `layers.ffn.feed_forward` gives, with its hidden layer kept."""
    return second(first(x).relu())


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Compute models by the plain formulation; their criterion is `Dense`."""
    with (
        patch("segsweep.model.layers.deformable.read", read_by_level),
        patch("segsweep.model.necks.pixel_decoder.feed_forward", feed_forward),
    ):
        yield


class Step:
    """A model, its batch and its optimizer."""

    def __init__(self, words: list[str]) -> None:
        config = compose([*words, "model.weights=null", "data.train=8"])
        loader = TrainLoader(config.data, config.hparams.batch_size, seed=0)
        self.batch = next(loader.batches(0))
        torch.manual_seed(0)
        self.model = config.model.build(Subject(["scene"]))
        apply(self.model, config.peft, config.model.roles)
        self.model.train()
        groups = parameter_groups(self.model, config.hparams, config.model.roles)
        self.optimizer = torch.optim.AdamW(groups)
        ours = self.model.criterion
        assert isinstance(ours, MaskDINOCriterion)
        self.criteria = {"segsweep": ours, "plain": Dense(1, ours.weights, ours.points)}

    def differentiate(self, side: str) -> dict[str, float]:
        """Forward, loss and backward; CPU milliseconds of both and the loss."""
        self.model.criterion = self.criteria[side]
        images, targets = self.batch.images, self.batch.targets
        torch.manual_seed(1)
        start = time.process_time()
        with plainly() if side == "plain" else contextlib.nullcontext(), parametrize.cached():
            loss = self.model.loss(self.model(images, targets), targets)["loss"]
        middle = time.process_time()
        loss.backward()
        ms = {"forward": 1e3 * (middle - start), "backward": 1e3 * (time.process_time() - middle)}
        return ms | {"loss": loss.item()}

    def update(self, side: str) -> None:
        """Take a step of the optimizer; a run lets go of its gradients at once."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)
        self.optimizer.step()
        if side == "segsweep":
            self.optimizer.zero_grad()


def peaks(case: str, side: str) -> list[float]:
    """MiB that the first and the second step add to the process, at most."""
    before, found = _sides.memory("VmRSS"), []
    step = Step(CASES[case])
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        step.optimizer.zero_grad()
        step.differentiate(side)
        step.update(side)
        found.append(_sides.memory("VmHWM") - before)
    return found


def times(case: str, _: str = "") -> dict[str, list[dict[str, float]]]:
    """Forward and backward of both sides in turns, after one round that is not counted."""
    step, found = Step(CASES[case]), {side: [] for side in SIDES}
    for _ in range(ROUNDS + 1):
        for side in SIDES:
            step.optimizer.zero_grad()
            found[side].append(step.differentiate(side))
    losses = [row["loss"] for rows in found.values() for row in rows]
    assert max(losses) - min(losses) < 1e-4 * max(losses), losses
    return {side: rows[1:] for side, rows in found.items()}


def rows() -> list[dict[str, Any]]:
    table = []
    for case in CASES:
        both = _sides.in_process("benchmarks.whole_step", case, "both")
        sums = {s: [row["forward"] + row["backward"] for row in both[s]] for s in SIDES}
        for side in SIDES:
            row: dict[str, Any] = {"case": case, "side": side}
            for part in ("forward", "backward"):
                row[f"{part} ms"] = median(measured[part] for measured in both[side])
            pairs = zip(sums[side], sums["plain"], strict=True)
            row["time to plain"] = median(a / b for a, b in pairs)
            first, second = _sides.in_process("benchmarks.whole_step", case, side)
            table.append(row | {"first peak MiB": first, "second peak MiB": second})
    return table


def run(case: str, side: str) -> Any:
    return times(case) if side == "both" else peaks(case, side)


if __name__ == "__main__":
    _sides.main(run, rows)

"""One optimizer step of borrowed methods beside our LoRA: Mask DINO R50, 1 x 512 x 512.

All in one process, in turns, on the same frozen tensors; CPU time on one thread, medians over the
rounds, ratios to LoRA within a round. A library that gives its update as a matrix adds that; of
others the layer is given the identity.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.data.loader import Batch, TrainLoader
from segsweep.peft.apply import apply
from segsweep.peft.borrowed_layers import Layer
from segsweep.run.module import parameter_groups

SIDES = ["lora", "vera", "lokr", "loha", "randlora", "oft"]
CASE = ["model=maskdino_r50", "model.weights=null", "data.side=512", "data.size=[512,512]",
        "data.train=8", "hparams.batch_size=1"]  # fmt: skip
ROUNDS = 5


def stepper(base: nn.Module, batch: Batch, side: str) -> tuple[Callable[[], None], dict[str, Any]]:
    """One step of a method on the base, whose tensors it shares, and what is said of it."""
    config = compose([*CASE, f"peft={side}"])
    model: Any = copy.deepcopy(base, {id(p): p for p in base.parameters()}).train()
    counts = apply(model, config.peft, config.model.roles)
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    optimizer = torch.optim.AdamW(parameter_groups(model, config.hparams, config.model.roles))

    def step() -> None:
        with parametrize.cached():
            loss = model.loss(model(batch.images, batch.targets), batch.targets)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    matrix = {True: "yes", False: "no"}[layers[0].additive] if layers else "ours"
    return step, {"method": side, "update is a matrix": matrix, "trained": counts.trainable}


def rows() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    config = compose([*CASE, "peft=frozen"])
    batch = next(TrainLoader(config.data, 1, seed=0).batches(0))
    torch.manual_seed(0)
    base = config.model.build(Subject(["scene"]))
    sides = [stepper(base, batch, side) for side in SIDES]
    rounds = [[seconds(step) for step, _ in sides] for _ in range(ROUNDS + 1)][1:]
    table = []
    for at, (_, row) in enumerate(sides):
        times = [times[at] for times in rounds]
        ratios = [times[at] / times[0] for times in rounds]
        table.append(row | {"step ms": 1e3 * median(times), "ratio": round(median(ratios), 3)})
    return table


def seconds(step: Callable[[], None]) -> float:
    """CPU seconds of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start

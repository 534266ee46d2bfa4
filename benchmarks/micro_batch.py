"""One optimizer step of LoRA by images of a forward, `hparams.micro_batch`.

Random weights, scenes of the embedded digits; memory is what building and stepping add to a process
that has imported everything. CPU time on one thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize

from benchmarks import _sides
from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.data.loader import TrainLoader
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups

SIDES = ["8", "4", "2", "1"]
CASES = {"tiny, 8 x 128 x 128": ["model=maskdino_tiny", "hparams.batch_size=8"]}


def run(case: str, side: str) -> dict[str, Any]:
    words = [*CASES[case], "model.weights=null", "data.train=8", f"hparams.micro_batch={side}"]
    config = compose(words)
    batch = next(TrainLoader(config.data, config.hparams.batch_size, seed=0).batches(0))
    parts = batch.parts(config.hparams.images_at_once)
    state: dict[str, Any] = {}

    def build() -> None:
        model = config.model.build(Subject(["scene"]))
        apply(model, config.peft, config.model.roles)
        groups = parameter_groups(model, config.hparams, config.model.roles)
        state.update(model=model.train(), optimizer=torch.optim.AdamW(groups))

    def step() -> None:
        if not state:
            build()
        state["optimizer"].zero_grad()
        for part in parts:
            with parametrize.cached():
                output = state["model"](part.images, part.targets)
                loss = state["model"].loss(output, part.targets)["loss"]
            (loss / len(parts)).backward()
        state["optimizer"].step()

    return _sides.measure({"step": step}, repeats=5)


def rows() -> list[dict[str, Any]]:
    return _sides.rows("benchmarks.micro_batch", list(CASES), SIDES)


if __name__ == "__main__":
    _sides.main(run, rows)

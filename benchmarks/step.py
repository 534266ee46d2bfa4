"""One optimizer step by method: what a frozen part costs, and what does not train saves.

Random weights, scenes of the embedded digits at the model's size; memory is what building and
stepping add to a process that has imported everything. CPU time on one thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks import _sides
from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.data.loader import TrainLoader
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups

SIDES = ["full_head", "decoder_only", "adapter", "lora", "embeddings_only"]
CASES = {
    "tiny, 8 x 128 x 128": ["model=maskdino_tiny", "hparams.batch_size=8"],
    "R50, 1 x 512 x 512": [
        "model=maskdino_r50", "hparams.batch_size=1", "data.side=512", "data.size=[512,512]",
    ],
}  # fmt: skip
REPEATS = {"tiny, 8 x 128 x 128": 5, "R50, 1 x 512 x 512": 1}


def run(case: str, side: str) -> dict[str, Any]:
    config = compose([*CASES[case], "model.weights=null", "data.train=8", f"peft={side}"])
    batch = next(TrainLoader(config.data, config.hparams.batch_size, seed=0).batches(0))
    torch.manual_seed(0)
    state: dict[str, Any] = {}

    def build() -> None:
        model = config.model.build(Subject(["scene"]))
        state["trained"] = apply(model, config.peft, config.model.roles).trainable
        state["model"] = model.train()
        groups = parameter_groups(model, config.hparams, config.model.roles)
        state["optimizer"] = torch.optim.AdamW(groups)

    def forward() -> None:
        if not state:
            build()
        with parametrize.cached():
            state["loss"] = state["model"].loss(
                state["model"](batch.images, batch.targets), batch.targets
            )["loss"]

    def backward() -> None:
        loss: Tensor = state.pop("loss")
        state["optimizer"].zero_grad(set_to_none=True)
        loss.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(state["model"].parameters(), 0.01)
        state["optimizer"].step()

    steps = {"forward and loss": forward, "backward": backward, "update": update}
    measured = _sides.measure(steps, REPEATS[case])
    return measured | {"result": {"trained": state["trained"]}}


def rows() -> list[dict[str, Any]]:
    return _sides.rows("benchmarks.step", list(CASES), SIDES)


if __name__ == "__main__":
    _sides.main(run, rows)

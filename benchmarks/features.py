"""An epoch of LoRA with the maps of the frozen backbone computed, kept in memory, read from files.

An epoch trains and validates on scenes of the embedded digits, random weights; `maps` are those of
its training images alone, loading included. Every image was seen before: the first round, which
computes the maps, is not counted. All sides must give the same loss to the last bit. CPU time on
one thread; memory is what building and training add to a process that has imported everything.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.nn.utils import parametrize

from benchmarks import _sides
from segsweep.base.config import compose
from segsweep.peft.apply import apply
from segsweep.run.evaluate import validation
from segsweep.run.features import cache_features
from segsweep.run.fit import train_loader
from segsweep.run.module import parameter_groups, step_seed

SIDES = ["off", "memory", "disk"]
CASES = {
    "tiny, 16 + 8 of 128 x 128": [
        "model=maskdino_tiny", "hparams.batch_size=8", "data.train=16", "data.val=8",
    ],
    "R50, 2 + 1 of 512 x 512": [
        "model=maskdino_r50", "hparams.batch_size=1", "data.train=2", "data.val=1",
        "data.side=512", "data.size=[512,512]",
    ],
    "Focal-L, 2 + 1 of 512 x 512": [
        "model=seem_focall", "hparams.batch_size=1", "data.train=2", "data.val=1",
        "data.side=512", "data.size=[512,512]",
    ],
}  # fmt: skip
REPEATS = {case: 3 if case.startswith("tiny") else 1 for case in CASES}


def run(case: str, side: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        words = [f"trainer.cache_features={side}", f"io.features={folder}"]
        return epochs(REPEATS[case], [*CASES[case], *words])


def epochs(repeats: int, words: list[str]) -> dict[str, Any]:
    config = compose([*words, "model.weights=null", "peft=lora"])
    train, val = train_loader(config), validation(config)
    state: dict[str, Any] = {}

    def build() -> None:
        torch.manual_seed(0)
        model = config.model.build(config.data.subject())
        apply(model, config.peft, config.model.roles)
        cache_features(model, config)
        groups = parameter_groups(model, config.hparams, config.model.roles)
        state.update(model=model.eval(), optimizer=torch.optim.AdamW(groups), losses=[])

    def maps() -> None:
        if not state:
            build()
        for batch in train.batches(0, len(train)):
            state["model"].features(batch.images)

    def epoch() -> None:
        model, optimizer = state["model"].train(), state["optimizer"]
        for step, batch in enumerate(train.batches(0, len(train))):
            torch.manual_seed(step_seed(0, step))
            with parametrize.cached():
                output = model(batch.images, batch.targets)
                loss = model.loss(output, batch.targets)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            state["losses"].append(loss.item())
        model.eval()
        for batch in val:
            model.find(batch)

    measured = _sides.measure({"maps": maps, "epoch": epoch}, repeats)
    return measured | {"result": {"loss": state["losses"][-1]}}


def rows() -> list[dict[str, Any]]:
    table = _sides.rows("benchmarks.features", list(CASES), SIDES)
    for place in range(0, len(table), len(SIDES)):
        assert len({row.pop("loss") for row in table[place : place + len(SIDES)]}) == 1, table
    return table


if __name__ == "__main__":
    _sides.main(run, rows)

"""A training step with LoRA in all blocks of SAM's image encoder, and in the last quarter of them.

The encoder of SAM-B alone with random weights, one image of noise; the product of its map with
noise takes the place of a loss. `kept`: what comes before the last quarter is in memory already.
Kept or not, the first product must be the same to the last bit. Memory is what building and
stepping add to a process that has imported everything. CPU time on one thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks import _sides
from segsweep.model.family import BackboneConfig
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.peft.lora import LoRA
from segsweep.run.feature_store import Memory
from segsweep.run.features import FeatureCache

SIDES = ["all 12 blocks", "last 3 blocks", "last 3 blocks, kept"]
CASES = {"1 x 512 x 512": 512}


def run(case: str, side: str) -> dict[str, Any]:
    torch.manual_seed(0)
    images = torch.randn(1, 3, CASES[case], CASES[case])
    noise = torch.randn(1, 256, CASES[case] // 16, CASES[case] // 16)
    blocks = range(12) if side.startswith("all") else range(9, 12)
    targets = [f"backbone.blocks.{i}.attn.qkv.weight" for i in blocks]
    state: dict[str, Any] = {}

    def build() -> None:
        backbone = BackboneConfig("samvit_base_patch16", "sam").build()
        model = Segmenter(backbone, nn.Module(), nn.Module())  # type: ignore[arg-type]
        state["trained"] = apply(model, LoRA(train=[], targets=targets, rank=8), {}).trainable
        state["optimizer"] = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        state["model"] = model.train()
        if side.endswith("kept"):
            model.feature_cache = FeatureCache("", Memory(None), entries=1, silent=True)
            model.features(images)

    def forward() -> None:
        if not state:
            build()
        (found,) = state["model"].features(images)
        state["loss"] = (found * noise).mean()
        state.setdefault("first", state["loss"].item())

    def backward() -> None:
        state["optimizer"].zero_grad(set_to_none=True)
        state.pop("loss").backward()

    def update() -> None:
        state["optimizer"].step()

    measured = _sides.measure({"forward": forward, "backward": backward, "update": update}, 1)
    return measured | {"result": {name: state[name] for name in ("trained", "first")}}


def rows() -> list[dict[str, Any]]:
    table = _sides.rows("benchmarks.last_blocks", list(CASES), SIDES)
    for place in range(0, len(table), len(SIDES)):
        _, late, kept = (row.pop("first") for row in table[place : place + len(SIDES)])
        assert late == kept, table
    return table


if __name__ == "__main__":
    _sides.main(run, rows)

"""What `make gpu-check` measures, with tiny models on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks._gpu.parts import Scale
from benchmarks._gpu.steps import waits
from benchmarks.gpu_check import BLOCKS, Block, taken

CPU = Scale(torch.device("cpu"), full=False)
# each choice of anchors or cells of a level, whose number only the device knows
ASKED = {"maskdino_tiny": 0, "seem_tiny": 0, "vit_tiny_atss": 15, "vit_tiny_solo": 11}


@pytest.mark.parametrize("block", [b for b in BLOCKS if not b.cuda], ids=lambda b: b.name)
def test_a_block_measures_all_its_rows(block: Block) -> None:
    rows = list(block.rows()(CPU))
    assert rows
    assert not [row["error"] for row in rows if "error" in row]


def test_a_loss_asks_its_device_as_little_as_it_can() -> None:
    rows = {row["model"]: row["loss"] for row in waits(CPU)}
    assert {model: sum(counts.values()) for model, counts in rows.items()} == ASKED


def test_blocks_that_cannot_be_measured_say_why() -> None:
    needing = next(block for block in BLOCKS if block.cuda)
    assert "GPU" in taken(needing, "cpu", True, left=100)["skipped"]
    assert "over" in taken(BLOCKS[0], "cpu", True, left=1)["skipped"]


def test_budgets_fit_into_the_whole() -> None:
    assert sum(block.seconds for block in BLOCKS) <= gpu_check.TOTAL


@pytest.mark.cuda
def test_the_whole_check_writes_its_report(tmp_path: Path) -> None:
    report = gpu_check.check(tmp_path / "report.json", "cuda", True, ["losses", "attention"])
    assert all(block["rows"] for block in report["blocks"].values())

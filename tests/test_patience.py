"""`hparams.patience`: training stops when nothing gets better, also across an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.run import evaluate
from segsweep.run.identity import Run
from segsweep.story import train

WORDS = [
    "data.train=4", "data.val=2", "hparams.batch_size=4", "hparams.epochs=5", "hparams.lr=0",
    "hparams.patience=2", "peft.rank=2", "model.weights=null", "trainer.accelerator=cpu",
]  # fmt: skip


def test_a_run_that_was_cut_after_its_patience_had_ended_trains_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(compose([*WORDS, f"io.results={tmp_path}"]))
    with monkeypatch.context() as cut:
        cut.setattr(evaluate, "evaluate", None)  # as a process that is killed behind its training
        with pytest.raises(TypeError):
            run.once(train)
    assert "stopped early: no better segm_AP in 2 validations" in capsys.readouterr().out
    record = run.once(train)
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    validations = [line for line in map(json.loads, lines) if "segm_AP" in line]
    assert [line["step"] for line in validations] == [1, 2, 3]
    assert record["best"]["step"] == 1

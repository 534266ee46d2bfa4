"""When a run validates, and that a validation which judged the same is its evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import compose
from segsweep.run import evaluate, fit
from segsweep.run.folder import PREDICTIONS
from segsweep.run.identity import Run
from segsweep.story import train

WORDS = [
    "data.train=4", "data.val=3", "hparams.batch_size=2", "hparams.epochs=1", "peft.rank=2",
    "model.weights=null", "trainer.accelerator=cpu", "io.progress=false",
]  # fmt: skip


def trained(folder: Path, *words: str) -> tuple[Run, dict[str, Any]]:
    run = Run(compose([*WORDS, *words, f"io.results={folder}"]))
    return run, run.once(train)


def validations(run: Run) -> list[float]:
    """Epochs after which a run was validated."""
    lines = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
    return [line["epoch"] for line in lines if "lr" not in line]


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.precision=bf16"],
        ["model=vit_tiny_segformer", "data=digits_semantic"],
        ["hparams.ema=0.9", "metrics=coco_boxes"],
    ],
)
def test_the_last_validation_is_an_evaluation_if_it_was_the_best(tmp_path, monkeypatch, words):
    again: list[str] = []
    judged = evaluate.judged
    monkeypatch.setattr(evaluate, "judged", lambda *a, **k: again.append(a[2]) or judged(*a, **k))
    (once, record) = trained(tmp_path / "once", *words)
    assert again == []
    monkeypatch.setattr(fit, "evaluated", lambda *_: None)  # so that it evaluates again
    (twice, other) = trained(tmp_path / "twice", *words)
    assert again == ["val"]
    for part in ("metrics", "classes", "analysis", "best"):
        assert record[part] == other[part]
    files = [(run.directory / PREDICTIONS).read_bytes() for run in (once, twice)]
    assert files[0] == files[1]


def test_weights_that_were_not_the_last_are_evaluated(tmp_path, monkeypatch):
    again: list[str] = []
    judged = evaluate.judged
    monkeypatch.setattr(evaluate, "judged", lambda *a, **k: again.append(a[2]) or judged(*a, **k))
    run, record = trained(tmp_path, "hparams.lr=0", "hparams.epochs=2")
    assert record["best"]["step"] == 2
    assert validations(run) == [1, 2]
    assert again == ["val"]
    assert record["files"][PREDICTIONS]


@pytest.mark.parametrize(
    ("every", "epochs", "expected"), [(2, 5, [1, 3, 5]), (3, 3, [3]), (4, 2, [2])]
)
def test_the_last_epoch_is_always_validated(tmp_path, every, epochs, expected):
    words = [f"trainer.validate_every={every}", f"hparams.epochs={epochs}", "io.predictions=false"]
    run, record = trained(tmp_path, *words, "data.train=2", "data.val=1")
    assert validations(run) == expected
    assert record["best"]["epoch"] in expected

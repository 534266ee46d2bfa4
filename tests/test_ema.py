"""`hparams.ema`: the average is the formula's, is validated and kept, and can be resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from segsweep.base.config import compose, fingerprint
from segsweep.peft.delta import trained
from segsweep.run.ema import MovingAverage
from segsweep.run.identity import Run
from segsweep.story import train

WORDS = [
    "data.train=4", "data.val=2", "hparams.batch_size=2", "hparams.epochs=3", "peft.rank=2",
    "hparams.ema=0.5", "hparams.lr=1e-3", "io.log_every=1", "io.save_every=1",
    "io.progress=false", "trainer.accelerator=cpu",
]  # fmt: skip
Tensors = dict[str, np.ndarray]


class Recorder:
    """What a run's weights and their averages were after each step; stops a run at one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights: list[Tensors] = []
        self.averages: list[Tensors] = []
        self.stop_at = 0
        begin, follow = MovingAverage.on_train_start, MovingAverage.on_train_batch_end

        def on_train_start(average: MovingAverage, *hook: Any) -> None:
            begin(average, *hook)
            self.note(average)

        def on_train_batch_end(average: MovingAverage, *hook: Any) -> None:
            if average.step + 1 == self.stop_at:
                raise InterruptedError
            follow(average, *hook)
            self.note(average)

        monkeypatch.setattr(MovingAverage, "on_train_start", on_train_start)
        monkeypatch.setattr(MovingAverage, "on_train_batch_end", on_train_batch_end)

    def note(self, average: MovingAverage) -> None:
        self.weights.append({n: p.detach().numpy().copy() for n, p in trained(average.model)})
        self.averages.append({n: t.numpy().copy() for n, t in average.averages.items()})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def run(folder: Path, *words: str) -> Run:
    one = Run(compose([*WORDS, f"io.results={folder}", *words]))
    one.once(train)
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Recorder]:
    """An undisturbed run, and what it was after each step."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        return run(tmp_path_factory.mktemp("whole")), recorder


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def curve(one: Run) -> list[dict[str, Any]]:
    lines = (one.directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def test_averages_are_the_formula_and_are_validated_and_kept(whole: tuple[Run, Recorder]) -> None:
    one, recorder = whole
    expected = {name: w.astype(np.float64) for name, w in recorder.weights[0].items()}
    assert len(recorder.weights) == 7
    for step, (weights, averages) in enumerate(
        zip(recorder.weights[1:], recorder.averages[1:], strict=True), start=1
    ):
        d = min(0.5, (1 + step) / (10 + step))
        expected = {name: d * e + (1 - d) * weights[name] for name, e in expected.items()}
        for name, average in averages.items():
            np.testing.assert_allclose(average, expected[name], rtol=1e-5, atol=1e-8)
    record = json.loads((one.directory / "record.json").read_text())
    kept, step = load_file(one.directory / "delta.safetensors"), record["best"]["step"]
    assert equal(kept, recorder.averages[step])
    assert not equal(kept, recorder.weights[step])
    validated = next(line for line in curve(one) if line["step"] == step and "segm_AP" in line)
    assert record["metrics"]["segm_AP"]["value"] == validated["segm_AP"] == record["best"]["value"]
    assert validated["segm_AP"] > 0


def test_a_resumed_run_is_the_same_to_the_bit(
    whole: tuple[Run, Recorder], recorder: Recorder, tmp_path: Path
) -> None:
    for recorder.stop_at in (2, 5):
        with pytest.raises(InterruptedError):
            run(tmp_path)
    recorder.stop_at = 0
    parts, (undisturbed, recorded) = run(tmp_path), whole
    assert equal(recorder.averages[-1], recorded.averages[-1])
    assert equal(recorder.weights[-1], recorded.weights[-1])
    assert curve(parts) == curve(undisturbed)
    kept = [(one.directory / "delta.safetensors").read_bytes() for one in (parts, undisturbed)]
    assert kept[0] == kept[1]


def test_the_last_averages_are_validated_and_kept(recorder: Recorder, tmp_path: Path) -> None:
    one = run(tmp_path, "trainer.validate_every=2", "hparams.epochs=1")
    assert equal(load_file(one.directory / "delta.safetensors"), recorder.averages[-1])


def test_runs_without_it_keep_their_names() -> None:
    plain = [word for word in WORDS if "ema" not in word]
    assert fingerprint(compose([*plain, "hparams.ema=null"])) == fingerprint(compose(plain))
    assert fingerprint(compose(WORDS)) != fingerprint(compose(plain))

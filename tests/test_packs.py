"""Runs of a pack pay once for what they share, and give what each gives alone, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Conv2d
from torch.nn.modules.module import register_module_forward_hook

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.signals import Stopped
from segsweep.base.turns import Turns
from segsweep.run.alike import packs
from segsweep.run.callbacks import Checkpoint
from segsweep.run.identity import Run, State
from segsweep.run.pack import train_pack
from segsweep.story import train
from segsweep.sweeps.local import Local, train_all

WORDS = [
    "model=seem_tiny", "model.weights=null", "data.train=4", "data.val=3", "data.transform=lsj",
    "hparams.batch_size=2", "hparams.epochs=2", "trainer.accelerator=cpu", "io.progress=false",
    "io.save_every=1", "io.log_every=1",
]  # fmt: skip
SETTINGS = {
    "lora": ["peft=lora", "peft.rank=2"],
    "fast": ["peft=lora", "peft.rank=2", "hparams.lr=0.01", "trainer.validate_every=2"],
    "late": ["peft=lora", "peft.train=[embeddings,'backbone.layers.3.*']", "hparams.ema=0.9"],
}


def runs(folder: Path) -> list[Run]:
    return [Run(compose([*WORDS, *said, f"io.results={folder}"])) for said in SETTINGS.values()]


def outcome(run: Run) -> dict[str, Any]:
    """All that a run leaves and that does not tell of times, processes and paths."""
    record = json.loads((run.directory / "record.json").read_text())
    told = ("id", "metrics", "classes", "analysis", "params", "optimizer", "best", "data")
    curve = run.directory / "metrics.jsonl"
    lines = map(json.loads, curve.read_text().splitlines() if curve.exists() else [])
    files = [run.directory / name for name in ("delta.safetensors", "predictions.jsonl.gz")]
    return {
        "record": {name: record[name] for name in told},
        "curve": [{k: v for k, v in line.items() if k != "time"} for line in lines],
        "files": [path.read_bytes() if path.exists() else None for path in files],
    }


class Watch:
    """Counts images that enter a backbone, keeps checkpoints, and fails or stops on demand."""

    def __init__(self) -> None:
        self.images = 0
        self.checkpoints: dict[tuple[str, int], dict[str, Any]] = {}
        self.hook = None  # called with run and step at each checkpoint

    def count(self, module: Any, args: Any, output: Any) -> None:
        if isinstance(module, Conv2d) and module.in_channels == 3 and not output.is_meta:
            self.images += len(args[0])


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch, save = Watch(), Checkpoint.save

    def watched(self: Checkpoint, trainer: Any) -> None:
        save(self, trainer)
        path = self.run.directory / "last.ckpt"
        content = torch.load(path, weights_only=True)
        watch.checkpoints[self.run.name, trainer.global_step] = content
        if watch.hook:
            watch.hook(self.run, trainer.global_step)

    monkeypatch.setattr(Checkpoint, "save", watched)
    handle = register_module_forward_hook(watch.count)
    yield watch
    handle.remove()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with watching(monkeypatch) as watch:
        yield watch


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Watch]:
    trained = runs(tmp_path_factory.mktemp("alone"))
    with pytest.MonkeyPatch.context() as patched, watching(patched) as watch:
        for run in trained:
            run.once(train)
    return [outcome(run) for run in trained], watch


def test_a_pack_gives_what_each_run_gives_alone(alone, watch, tmp_path):
    outcomes, apart = alone
    pack, voice = runs(tmp_path), sys.stdout
    assert train_pack(pack, train)
    assert sys.stdout is voice
    for run, expected in zip(pack, outcomes, strict=True):
        assert outcome(run) == expected
        assert (run.directory / "log.txt").read_text().count("  record ") == 1
    assert watch.checkpoints.keys() == apart.checkpoints.keys()
    for key, content in watch.checkpoints.items():
        for part in ("state_dict", "optimizer_states"):
            assert same(content[part], apart.checkpoints[key][part])
    assert watch.images <= 0.8 * apart.images  # one of the three has a beginning of its own


def test_a_run_that_fails_leaves_and_a_pack_that_is_stopped_goes_on(alone, watch, tmp_path):
    def trouble(run: Run, step: int) -> None:
        if step == 1 and run.name == pack[0].name:
            raise RuntimeError("power cut")
        if step == 2 and run.name == pack[2].name:
            os.kill(os.getpid(), signal.SIGTERM)

    pack = runs(tmp_path)
    watch.hook = trouble
    with pytest.raises(Stopped):
        train_pack(pack, train)
    assert "power cut" in (pack[0].directory / "log.txt").read_text()
    assert [run.state() for run in pack] == [State.FAILED, State.INTERRUPTED, State.INTERRUPTED]
    watch.hook = None
    assert train_pack(pack, train)
    assert [outcome(run) for run in pack] == alone[0]


def test_a_launcher_starts_packs(tmp_path):
    words = ["data.train=2", "data.val=1", "hparams.epochs=1", "hparams.batch_size=2"]
    pair = [
        Run(compose([*WORDS, *words, f"peft.rank={r}", f"io.results={tmp_path}"])) for r in (1, 2)
    ]
    ended = train_all(dict.fromkeys(pair, ""), Local(workers=1, pack=2))
    assert ended == dict.fromkeys(pair, State.DONE)
    for run in pair:
        assert f"run {run.name}" in (run.directory / "log.txt").read_text()


def test_runs_that_see_other_batches_are_no_pack(tmp_path):
    lora = ["peft=lora", f"io.results={tmp_path}"]
    words = [["seed=0"], ["seed=1"], ["hparams.lr=1"], ["trainer.devices=2"], ["peft.rank=2"]]
    first, seed, rate, several, rank = (Run(compose([*lora, *said])) for said in words)
    apart = [[first, rate], [seed], [several], [rank]]
    assert packs([first, seed, rate, several, rank], 2) == apart
    assert packs([first, rate], 1) == [[first], [rate]]
    with pytest.raises(UserError, match="one model, data set, seed"):
        train_pack([first, seed], train)


def test_the_furthest_behind_has_the_turn():
    turns, order = Turns(3), []

    def go(number: int, places: list[int]) -> None:
        turns.wait(number, ())
        for place in places:
            turns.wait(number, (place,))
            order.append((place, number))
        turns.leave(number)

    plans = [[0, 1, 2], [1, 2], [0]]
    threads = [threading.Thread(target=go, args=item) for item in enumerate(plans)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order == [(0, 0), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]

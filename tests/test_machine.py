"""On what a run computes: refused where it is not there, recorded, and not changed unasked."""

from __future__ import annotations

import pytest
import torch

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.run.devices import visible
from segsweep.run.identity import Run
from segsweep.run.machine import MOST_LOADING, kind_of, loading_processes, require
from segsweep.run.restore import same
from segsweep.story import train

TINY = [
    "data=digits", "data.train=4", "data.val=2", "data.size=[64,64]", "hparams.batch_size=2",
    "hparams.epochs=1", "model.weights=null", "model.queries=8", "model.points=16",
    "model.encoder_layers=1", "model.decoder_layers=1", "trainer.accelerator=cpu",
    "io.progress=false",
]  # fmt: skip
ELSEWHERE = "cuda:NVIDIA H100"


def full_disk(*_: object) -> None:
    raise UserError("no room for predictions")


def test_a_run_goes_on_on_the_kind_of_device_that_began_it(tmp_path, monkeypatch) -> None:
    words = [*TINY, f"io.results={tmp_path}"]
    run = Run(compose(words))
    with monkeypatch.context() as cut:
        cut.setattr("segsweep.analysis.study.recorded", full_disk)
        with pytest.raises(UserError, match="no room"):
            run.once(train)
    last = run.directory / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["kinds"] == ["cpu"]
    torch.save(checkpoint | {"kinds": [ELSEWHERE]}, last)
    with pytest.raises(UserError, match=rf"{ELSEWHERE}, this is cpu.*trainer\.cross_resume=true"):
        run.once(train)
    assert last.exists()
    told = Run(compose([*words, "trainer.cross_resume=true"]))
    assert told.id == run.id
    record = told.once(train)
    assert record["status"] == "done"
    assert record["device"]["kind"] == "cpu"
    assert record["device"]["trained_on"] == [ELSEWHERE, "cpu"]
    renamed = record | {"id": "0" * 12, "name": "old"}
    with pytest.raises(UserError, match="its base weights or a default changed"):
        same(run.directory, run.config, renamed)
    del renamed["weights"]  # as in records of versions that named runs otherwise
    assert same(run.directory, run.config, renamed).id == renamed["id"]


def test_gpus_that_are_not_there_are_named_before_anything_is_built(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run = Run(compose(["trainer=gpu", f"io.results={tmp_path}"]))
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu: no GPU is found"):
        run.once(train)
    failure = read_json(run.directory / "failed.json")
    assert "assemble" not in failure["error"]["traceback"]
    assert not (run.directory / "metrics.jsonl").exists()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require(compose(["trainer=gpu", "trainer.devices=2"]).trainer)
    with pytest.raises(UserError, match=r"trainer\.devices=3: torch finds 2 GPUs"):
        require(compose(["trainer=gpu", "trainer.devices=3"]).trainer)


def test_a_machine_without_the_device_of_a_gpu_is_known_without_torch(tmp_path) -> None:
    trainer = compose(["trainer=gpu"]).trainer
    with pytest.raises(UserError, match="no GPU is found"):
        visible(trainer, tmp_path)
    visible(compose([]).trainer, tmp_path)
    (tmp_path / "nvidia0").touch()
    visible(trainer, tmp_path)


def test_a_gpu_is_not_kept_waiting_for_data(monkeypatch) -> None:
    assert loading_processes(compose(["trainer=gpu", "trainer.accelerator=cpu"])) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert 0 < loading_processes(compose(["trainer=gpu"])) <= MOST_LOADING
    assert loading_processes(compose(["trainer=gpu", "io.workers=0"])) == 0
    assert loading_processes(compose(["trainer=gpu", "io.workers=9"])) == 9


def test_a_kind_is_told_by_what_computes_alike(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert kind_of(torch.device("cuda", 1)) == ELSEWHERE
    assert kind_of(torch.device("cpu")) == "cpu"

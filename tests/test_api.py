"""From Python: what is trained, swept, read and loaded is what the command line makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segsweep
from segsweep.base.errors import UserError
from segsweep.sweeps import names
from tests.runs import TINY

SHORT = [word for word in TINY if "epochs" not in word] + ["hparams.epochs=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def run(folder: Path) -> segsweep.TrainedRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return segsweep.train(*SHORT)


def test_a_run_is_trained_once_and_known_by_its_metrics(run, capsys) -> None:
    assert run.metrics["segm_AP"] is not None
    assert segsweep.train(*SHORT) == run
    assert "done already" in capsys.readouterr().out


def test_runs_are_a_frame_and_a_sweep_is_the_rows_of_its_runs(run) -> None:
    table = segsweep.sweep([*SHORT, "io.sweep=mine"])
    assert names.members(Path("results"), "mine").keys() == {run.name}
    assert list(table["name"]) == list(segsweep.runs()["name"]) == [run.name]
    assert table["metrics.segm_AP.value"][0] == run.metrics["segm_AP"]


def test_a_model_finds_objects_on_pictures(run, folder: Path, capsys) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "b.txt").write_text("no picture")
    model = segsweep.load(run)
    assert [*model.predict(["a.png", "b.txt"])] == [Path("a.png")]
    assert "skipped b.txt" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of 1 files is a picture"):
        model.predict("b.txt")
    ((path, every),) = model.predict("a.png", threshold=0.0).items()
    assert path == Path("a.png")
    assert every.masks.shape == (len(every.scores), 40, 50)
    (sure,) = segsweep.load(run.name[-12:-4]).predict([folder / "a.png"], 0.9).values()
    assert len(every.scores) > len(sure.scores) == len(sure.masks) == 0  # it has learnt nothing
    assert len(model.classes) > max(every.labels)


def test_mistakes_are_said_before_anything_is_trained(folder: Path) -> None:
    with pytest.raises(UserError, match="rnk"):
        segsweep.sweep(["peft=lora", "peft.rnk=2,4"])
    with pytest.raises(UserError, match=r"^data\.slices: .* no column 'camera'"):
        segsweep.sweep([*SHORT, "data.slices=[camera]", "io.results=none"])
    assert not (folder / "none").exists()
    with pytest.raises(UserError, match="run"):
        segsweep.load("nothing")
    with pytest.raises(UserError, match=r"absent\.png"):
        segsweep.load(segsweep.runs()["name"][0]).predict("absent.png")


def test_the_package_is_imported_without_torch_and_pandas() -> None:
    code = "import segsweep, sys; print({'torch', 'pandas', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set()")

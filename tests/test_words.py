"""Configs name words: nothing that a results folder says is imported, and your words are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segsweep.__main__ import VERBS
from segsweep.base.config import compose, plain
from segsweep.base.errors import UserError
from segsweep.base.words import (
    FOLDERS,
    GROUPS,
    add_folder,
    files,
    own_folders,
    without_folders,
)
from segsweep.run.identity import Run
from segsweep.run.restore import load
from segsweep.story import train
from segsweep.sweeps.slurm import Slurm, script
from tests.runs import TINY, the_run
from tests.test_remarks import SOURCE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
QUICK = [*TINY, "hparams.epochs=1", "trainer.limit_train=1"]
BIG = "_target_: segsweep.peft.lora.LoRA\nname: big\nrank: 64\n"
EVIL = """\
from dataclasses import dataclass
from pathlib import Path
Path({marker!r}).write_text("ran")
@dataclass
class Evil:
    name: str = ""
"""
X, Y = "results/runs/x", "results/runs/y"  # finished, and not begun
SMALL = ["data.train=2", "data.val=1", "model.weights=null"]
WORDS = {
    "train": QUICK,
    "work": [X],
    "params": ["peft=lora", "--classes", "3"],
    "check-data": ["data=digits", "data.train=1", "data.val=1", "--quiet"],
    "analyse": [X, Y],
    "predict": ["split=val", X],
    "compare": [X, "results/runs/z"],
    "experts": [X],
    "spectrum": [X, Y],
    "evaluate": [X, "data=digits", "data.val=3"],
    "merge": [X],
    "export": [X],
    "bench": ["peft=lora", *SMALL, "--help"],
    "collect": [],
    "table": ["ablation"],
    "audit": [str(ROOT / "results/reported/reported.csv")],
    "report": [],
    "plan": QUICK,
    "status": [],
    "logs": [X],
    "cancel": [X],
    "retry": [Y],
    "sync": ["--help"],
    "prune": ["--yes"],
}
EVERY = """\
import json, sys, traceback
from pathlib import Path
from segsweep.__main__ import main
told = {}
for verb, words in json.loads(sys.argv[1]).items():
    sys.argv = ["segsweep", verb, *words]
    try:
        main()
    except SystemExit as end:
        told[verb] = [end.code, Path("marker").exists()]
    except BaseException:
        told[verb] = [traceback.format_exc(), Path("marker").exists()]
    Path("marker").unlink(missing_ok=True)
    for name in [n for n in sys.modules if n == "evil" or n.split(".")[0] == "results"]:
        del sys.modules[name]
Path("told.json").write_text(json.dumps(told))
"""


def segsweep(*words: str, cwd: Path, **named: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != FOLDERS} | named
    command = [sys.executable, "-m", "segsweep", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of the product."""
    folder = tmp_path_factory.mktemp("trained")
    with chdir(folder):
        Run(compose(QUICK)).once(train)
    return folder


def planted(directory: Path, targets: list[str]) -> None:
    """Let the config of a run name classes, as those of earlier versions did."""
    config = OmegaConf.load(directory / "config.yaml")
    for group, target in zip(GROUPS, targets * len(GROUPS), strict=False):
        config[group] = {"_target_": target, **config[group]}
    OmegaConf.save(config, directory / "config.yaml")


def test_what_lies_in_a_results_folder_is_not_run(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "results", tmp_path / "results")
    run = the_run(tmp_path)
    for name in ("x", "y", "z"):
        shutil.copytree(run, tmp_path / "results/runs" / name)
    (tmp_path / Y / "record.json").unlink()
    evil = EVIL.format(marker=str(tmp_path / "marker"))
    for folder in (tmp_path, tmp_path / X, tmp_path / Y):
        (folder / "evil.py").write_text(evil)
    for directory in (run, tmp_path / X, tmp_path / Y, tmp_path / "results/runs/z"):
        planted(directory, ["results.runs.x.evil.Evil", "evil.Evil", "results.runs.y.evil.Evil"])
    assert WORDS.keys() == {*VERBS}
    command = [sys.executable, "-c", EVERY, json.dumps(WORDS)]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert not SOURCE.search(done.stdout + done.stderr)
    told = json.loads((tmp_path / "told.json").read_text())
    assert [verb for verb, (_, ran) in told.items() if ran] == []
    failed = {verb: end for verb, (end, _) in told.items() if end not in (0, None)}
    # x and y are not the names of these runs, and x has no experts
    assert failed.keys() <= {"work", "retry", "experts"}, failed


def test_a_run_of_an_earlier_version_keeps_its_name(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "results", tmp_path / "results")
    run = the_run(tmp_path)
    assert "_target_" not in (run / "config.yaml").read_text()
    planted(run, ["segsweep.config.Hparams", "segsweep.data.digits.Digits"])
    assert Run(load(run)).name == run.name


@pytest.mark.parametrize(
    "name", ["../../results/runs/x/evil", "/etc/passwd", "lor", "", 7, ["lora"], None]
)
def test_a_word_that_is_not_installed_is_named_with_its_cure(tmp_path: Path, name) -> None:
    run = Run(compose([f"io.results={tmp_path}/results"]))
    run.directory.mkdir(parents=True)
    run.prepare()
    file = run.directory / "config.yaml"
    config = OmegaConf.load(file)
    config["peft"]["name"] = name
    OmegaConf.save(config, file)
    with pytest.raises(UserError) as error:
        load(run.directory)
    parts = [str(file), f"peft={name}", f"choices: {min(files('peft'))}, ", "--config-dir FOLDER"]
    assert [part for part in parts if part not in str(error.value)] == []
    assert ("did you mean 'lora'" in str(error.value)) == (name == "lor" or name == ["lora"])


def test_words_of_yours_reach_every_process(tmp_path: Path) -> None:
    (tmp_path / "mine/peft").mkdir(parents=True)
    (tmp_path / "mine/peft/big.yaml").write_text(BIG)
    (tmp_path / "mine/peft/bigger.yaml").write_text(
        "defaults: [big, _self_]\nname: bigger\nrank: 96\n"
    )
    words = ["-m", "peft=big,bigger", *[w for w in QUICK if not w.startswith("peft.")]]
    done = segsweep("--config-dir", "mine", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    big, bigger = sorted((tmp_path / "results/runs").glob("[!.]*"))
    assert (big.name.split("-")[1], bigger.name.split("-")[1]) == ("big", "bigger")
    for run in (big, bigger):
        assert (run / "record.json").exists()
    files = ["analyse", str(big), str(bigger)]
    assert segsweep("--config-dir=mine", *files, cwd=tmp_path).returncode == 0
    mine = str(tmp_path / "mine")
    assert segsweep(*files, cwd=tmp_path, **{FOLDERS: mine}).returncode == 0
    lost = segsweep(*files, cwd=tmp_path)
    assert lost.returncode == 2
    assert "peft=big: there is no peft/big.yaml" in lost.stderr + lost.stdout
    (tmp_path / "mine/peft/bigger.yaml").unlink()
    part = segsweep(*files, cwd=tmp_path, **{FOLDERS: mine})  # goes on with the other run
    assert part.returncode == 0
    assert f"skipped {bigger}/config.yaml: peft=bigger" in part.stdout


def test_folders_are_taken_off_a_command_line_whoever_names_them(tmp_path: Path) -> None:
    names = [tmp_path / name for name in "abcd"]
    for name in names:
        name.mkdir()
    a, b, c, d = names
    line = [
        "peft=x", "--config-dir", str(a), "seed=1", f"--config-dir={b}",
        f"hydra.searchpath=[file://{c}, '{d}', pkg://segsweep.base]",
    ]  # fmt: skip
    assert without_folders(line) == ["peft=x", "seed=1"]
    assert own_folders() == [*names, ROOT / "segsweep" / "base"]
    for wrong in (["--config-dir", "nowhere"], ["--config-dir"], ["--config-dir="]):
        with pytest.raises(UserError, match="there is no such folder"):
            without_folders(wrong)


@pytest.mark.skipif(not shutil.which("srun"), reason="slurmctld not installed")
def test_jobs_are_told_of_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDERS)
    run = Run(compose([]))
    assert FOLDERS not in script(run, Slurm(), tmp_path / "intent.json")
    add_folder(tmp_path)
    assert f"\nexport {FOLDERS}={tmp_path}\n" in script(run, Slurm(), tmp_path / "intent.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_target_: os.system\nname: big\n", "is no dataclass derived from Choice"),
        ("_target_: nowhere.Big\nname: big\n", "cannot be imported"),
        ("_target_: pathlib.Path\nname: big\n", "is no dataclass derived from Choice"),
        ("_target_: segsweep.peft.lora.LoRA\nname: other\n", "needs the line 'name: big'"),
        ("_target_: segsweep.peft.lora.LoRA\nrank: 3\n", "needs the line 'name: big'"),
        ("name: big\nrank: 3\n", "names no class in _target_"),
    ],
)
def test_a_file_of_a_word_that_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft/big.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        compose([f"hydra.searchpath=[file://{tmp_path}]", "peft=big"])
    assert "big.yaml" in str(error.value)


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize("key", ["peft", "model.backbone", "data"])
def test_no_override_names_a_class(sign: str, key: str, tmp_path: Path) -> None:
    done = segsweep(f"{sign}{key}._target_=os.system", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{key}._target_: there is no key '_target_' in {key!r}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_frozen_configs_hold_no_class() -> None:
    assert "_target_" not in json.dumps(plain(compose([])))

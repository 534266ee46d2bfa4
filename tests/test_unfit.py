"""Words that cannot go together: no runs of a sweep, but said with the reason; alone refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import segsweep
from segsweep.base.config import compose
from segsweep.base.errors import Unfit, UserError
from segsweep.bench.settings import comparisons
from segsweep.sweeps.names import chosen, members
from segsweep.sweeps.sweeper import configs, left_out
from segsweep.verbs import params, plan, status
from tests.test_verbs_plan import DATA, finished

MODELS = "model=maskdino_tiny,sam_tiny"  # of which one serves label maps alone
INSTANCES = ["-m", MODELS, "data=digits", *DATA]
REASON = "model=sam_tiny serves the task semantic, that of data=digits is instances"
SAID = f"1 of 2 combinations are left out: {REASON}"


@pytest.mark.parametrize(
    "words",
    [
        ["model=sam_tiny", "data=digits"],
        ["data=digits", "metrics=miou"],
        ["data=digits_semantic", "data.domain=street", "metrics=overlap"],
        ["model=maskdino_tiny", "peft=vpt"],
        ["model=maskdino_tiny", "peft=lora", "peft.scope=neck"],
        ["model=sam_tiny", "data=digits_binary", "peft=vpt", "peft.scope=decoder"],
    ],
)
def test_a_pair_alone_is_refused(words: list[str]) -> None:
    with pytest.raises(Unfit):
        compose(words)
    with pytest.raises(Unfit):
        list(configs(["-m", *words, "seed=0,1"]))


def test_what_is_left_out_is_grouped_by_its_reason() -> None:
    assert left_out([], 3) == []
    assert left_out(["a"] * 4, 60) == ["4 of 60 combinations are left out: a"]
    grouped = ["3 of 9 combinations are left out:", "  2: b", "  1: a"]
    assert left_out(["b", "a", "b"], 9) == grouped


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["peft=lora", "peft.rank=4,0"], "peft.rank=0"),
        (["peft=from_scratch", "model.weights=null,base.pth"], "model.weights=base.pth"),
    ],
)
def test_other_mistakes_refuse_the_sweep(words: list[str], mistake: str) -> None:
    with pytest.raises(UserError, match=mistake) as refused:
        list(configs([*INSTANCES, *words]))
    assert not isinstance(refused.value, Unfit)


def test_params_counts_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert params.main([*INSTANCES, "peft=frozen"]) == 0
    out = capsys.readouterr().out
    assert SAID in out
    assert "│ sam_tiny" not in out
    with pytest.raises(UserError, match=REASON):
        params.main(["model=sam_tiny", "data=digits"])


def test_bench_measures_what_fits() -> None:
    (comparison,) = comparisons([*INSTANCES, "peft=lora"])
    assert comparison.base.model.name == "maskdino_tiny"


def test_a_plan_lists_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*INSTANCES, f"io.results={tmp_path}"]
    assert plan.main([*words, "--json"]) == 0
    fits, unfit = json.loads(capsys.readouterr().out)
    assert (fits["state"], fits["starts"], fits["left_out"]) == ("new", True, None)
    assert (unfit["state"], unfit["starts"], unfit["left_out"][: len(REASON)]) == (
        ("left out", False, REASON)
    )
    assert unfit["faults"] == []
    assert plan.main([*words, "--save", "kept"]) == 0
    out = capsys.readouterr().out
    assert "1 runs: 1 to run" in out
    assert SAID in out
    assert [run.name.split("-")[0] for run in chosen(tmp_path, ["kept"])] == ["maskdino_tiny"]
    mistaken = [*words, "peft=lora", "peft.rank=x,2"]
    assert plan.main([*mistaken, "--json"]) == 1
    states = {entry["state"] for entry in json.loads(capsys.readouterr().out)}
    assert states == {"refused", "new", "left out"}


def test_a_plan_of_nothing_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["-m", "model=sam_tiny", "data=digits", "seed=0,1"]) == 1
    out = capsys.readouterr().out
    assert "0 to run, 2 refused" in out
    assert out.count(REASON) == 1


@pytest.mark.parametrize("launcher", ["queue", "local"])
def test_a_sweep_is_its_runs_that_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    done = finished(tmp_path / "results", "model=maskdino_tiny", "data=digits", "seed=1")
    command = [sys.executable, "-m", "segsweep", f"hydra/launcher={launcher}", "io.sweep=mine"]
    seeds = "seed=0,1" if launcher == "queue" else "seed=1"  # where nothing is left to train
    words = [*command, *INSTANCES, seeds]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    number = 2 if launcher == "queue" else 1
    assert f"{number} of {2 * number} combinations are left out: {REASON}" in ended.stdout
    assert f"sweep: {number} runs, 1 of them done already" in ended.stdout
    runs = members(tmp_path / "results", "mine")
    assert {name.split("-")[0] for name in runs} == {"maskdino_tiny"}
    assert len(runs) == number
    assert done.name in runs
    assert status.main(["mine", "--results", str(tmp_path / "results"), "--json"]) == 0
    assert {run["run"] for run in json.loads(capsys.readouterr().out)} == runs.keys()
    nothing = [word.replace("maskdino_tiny,", "") for word in words]
    ended = subprocess.run(nothing, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert REASON in ended.stderr
    assert members(tmp_path / "results", "mine") == runs


def test_from_python_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished(Path("results"), "model=maskdino_tiny", "data=digits")
    table = segsweep.sweep([*INSTANCES, "io.sweep=mine"])
    assert list(table["name"]) == [run.name]
    assert members(Path("results"), "mine").keys() == {run.name}
    assert SAID in capsys.readouterr().out
    with pytest.raises(UserError, match=f"(?s)nothing was started:.*{REASON}"):
        segsweep.sweep([word.replace("maskdino_tiny,", "") for word in INSTANCES])

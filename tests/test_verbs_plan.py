"""A plan names what would run, what is missing for it, and what it would cost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.words import conf_dir
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps.names import chosen
from segsweep.sweeps.plan import composed, price
from segsweep.sweeps.plan_lines import lines
from segsweep.verbs import plan

DATA = ["data.train=8", "data.val=4"]


def finished(results: Path, *words: str, seconds: float = 100.0, images: int = 8) -> Run:
    """Write the record of a finished run: of its seconds, 20 do not depend on its length."""
    run = Run(compose([f"io.results={results}", *DATA, *words]))
    run.directory.mkdir(parents=True)
    run.prepare()
    record = run.head() | {
        "status": "done",
        "seconds": {"setup": 15.0, "train": seconds - 20.0, "evaluate": 5.0, "total": seconds},
        "memory": {"peak_rss_mib": 1024.0, "peak_cuda_mib": None},
        "data": {"images": {"train": images, "val": 4}},
        "started": "2026-11-20T10:00:00+00:00",
    }
    (run.directory / "record.json").write_text(json.dumps(record))
    (run.directory / "delta.safetensors").write_bytes(b"x" * 2**20)
    return run


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Plan with words; return what JSON says, by overrides."""

    def ask(*words: str, status: int = 0) -> dict[str, dict]:
        assert plan.main([f"io.results={tmp_path}", *DATA, *words, "--json"]) == status
        entries = json.loads(capsys.readouterr().out)
        words_of = (f"io.results={tmp_path}", *DATA)
        return {
            " ".join(w for w in entry["overrides"] if w not in words_of): entry for entry in entries
        }

    return ask


def test_states_and_combinations_that_mean_the_same_run(tmp_path: Path, planned) -> None:
    finished(tmp_path, "seed=1")
    entries = planned("-m", "peft=lora", "seed=1,2", "peft.alpha=8,8.0")
    assert {words: (entry["state"], entry["starts"]) for words, entry in entries.items()} == {
        "peft=lora seed=1 peft.alpha=8": ("done", False),
        "peft=lora seed=1 peft.alpha=8.0": ("done", False),
        "peft=lora seed=2 peft.alpha=8": ("new", True),
        "peft=lora seed=2 peft.alpha=8.0": ("new", False),
    }
    assert entries["peft=lora seed=2 peft.alpha=8.0"]["same_as"].endswith("peft.alpha=8")


def test_nothing_is_written(tmp_path: Path, planned) -> None:
    planned("-m", "seed=1,2")
    assert list(tmp_path.iterdir()) == []


def test_one_wrong_combination_does_not_hide_the_others(planned) -> None:
    entries = planned("-m", "peft=lora", "peft.rank=2,x,4", status=1)
    assert [entry["state"] for entry in entries.values()] == ["new", "refused", "new"]
    assert "must be a whole number" in entries["peft=lora peft.rank=x"]["faults"][0]


def test_missing_data_and_weights_are_named_once(tmp_path: Path, capsys) -> None:
    words = ["-m", f"io.results={tmp_path}", "model.weights=https://x.invalid/a.pt", "seed=1,2"]
    assert plan.main(words) == 1
    out = capsys.readouterr().out
    assert out.count("https://x.invalid/a.pt: is not here") == 1
    assert "2 runs wait for what is missing here" in out
    assert plan.main(["data=coco", "data.root=/nowhere"]) == 1
    assert "data.root=/nowhere" in capsys.readouterr().out


STUDIES = {  # a setting that has a run on every set and every model of the study
    "table2": ["peft=full_head"],
    "convlora": ["peft=conv_lora"],
    "vfm": ["peft=full_ft"],
}


def places_of(sweep: str) -> set[str]:
    """The folders of data that a sweep names, read from its file."""
    text = (Path(conf_dir()) / "sweep" / f"{sweep}.yaml").read_text()
    return set(re.findall(r"data\.root=(data/\S+)", text))


@pytest.mark.parametrize("sweep", STUDIES)
def test_a_study_is_planned_whole_where_neither_data_nor_weights_are(
    tmp_path: Path, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGSWEEP_CACHE", str(tmp_path / "cache"))
    _, entries = composed([f"+sweep={sweep}", *STUDIES[sweep]], fetch=False)
    price(entries, measure=False)
    out = "\n".join(lines(entries, entries))
    assert re.search(r"nothing is known of \d+ .* which learn from [\d.]+ million images\n", out)
    assert {(entry.state, entry.to_run) for entry in entries} == {("missing", True)}
    assert all(entry.images and not entry.faults for entry in entries)
    lacks = {lack for entry in entries for lack in entry.missing}
    listed = [line for line in out.splitlines() if re.match(r"  \d+: (data|model)\.", line)]
    assert sorted(line.partition(": ")[2] for line in listed) == sorted(lacks)
    data = {lack for lack in lacks if lack.startswith("data.root=")}
    assert {lack.split(":")[0].removeprefix("data.root=") for lack in data} == places_of(sweep)
    assert all("How to obtain it: " in lack for lack in data)
    assert all("MB). A run fetches it" in lack for lack in lacks - data)
    assert lacks - data
    assert list(tmp_path.iterdir()) == []


def test_what_waits_for_its_data_is_priced_by_their_published_size(
    tmp_path: Path, planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGSWEEP_CACHE", str(tmp_path / "cache"))
    finished(tmp_path, "model=maskdino_r50", "seed=1", seconds=100)
    words = ["model=maskdino_r50", "data=ndd20", "data.root=/nowhere", "data.train=1500"]
    (entry,) = planned(*words, "hparams.epochs=15", status=1).values()
    assert entry["source"] == "1 run(s) of the model"
    assert entry["hours"] == pytest.approx((20 + 80 * 1500 * 15 / (8 * 10)) / 3600)
    assert entry["images"] == 15 * 1500


def test_costs_are_those_of_the_runs_most_like_it(tmp_path: Path, planned) -> None:
    finished(tmp_path, "peft=lora", "peft.rank=4", "seed=1", seconds=100)
    finished(tmp_path, "peft=lora", "peft.rank=8", "seed=1", seconds=300)
    entries = planned("-m", "peft=lora,adapter", "peft.lr=1e-3", "seed=2")
    (lora, adapter) = entries.values()
    assert lora["source"] == "1 run(s) like it"
    assert lora["hours"] == pytest.approx(300 / 3600)
    assert lora["memory"] == 2**30
    assert lora["disk"] == pytest.approx(4 * 2**20, rel=0.01)  # and a checkpoint while it trains
    assert adapter["source"] == "2 run(s) of the model"
    assert adapter["hours"] == pytest.approx(200 / 3600)


def test_costs_grow_with_epochs_and_images(tmp_path: Path, planned) -> None:
    finished(tmp_path, "seed=1", seconds=100)
    (longer,) = planned("hparams.epochs=20").values()
    assert longer["hours"] == pytest.approx((20 + 2 * 80) / 3600)
    (larger,) = planned("data.train=24").values()
    assert larger["hours"] == pytest.approx((20 + 3 * 80) / 3600)


def test_runs_of_another_machine_and_resumed_ones_teach_nothing(tmp_path: Path, planned) -> None:
    finished(tmp_path, "seed=1", "trainer.accelerator=gpu")
    resumed = finished(tmp_path, "seed=2")
    line = {"step": 1, "epoch": 1, "time": 1e9, "lr": 1.0}  # long before the record's start
    (resumed.directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (directory,) = planned("seed=3").values()
    assert directory["hours"] is None


def test_a_budget_refuses_or_trims(tmp_path: Path, planned, capsys) -> None:
    finished(tmp_path, "seed=0", seconds=3600)
    words = ["-m", "seed=1,2,3", f"io.results={tmp_path}", *DATA]
    assert plan.main([*words, "--max-hours", "3.1"]) == 0
    assert "3 to run; about 3 h 00 min" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"about 3\.0 hours; --trim"):
        plan.main([*words, "--max-hours", "2.5"])
    capsys.readouterr()
    assert plan.main([*words, "--max-hours", "2.5", "--trim", "--save", "cheap"]) == 0
    out = capsys.readouterr().out
    assert "too much" in out
    assert "4 runs" not in out
    saved = chosen(tmp_path, ["cheap"])
    assert [state_of(run) for run in saved] == [State.NEW, State.NEW]
    assert all((run / "config.yaml").exists() for run in saved)


def test_a_budget_needs_to_know(planned) -> None:
    with pytest.raises(UserError, match="nothing is known of 1 runs"):
        planned("seed=1", "--max-hours", "1")


def test_the_header_is_what_the_launcher_would_ask_for(tmp_path: Path, capsys) -> None:
    words = [
        "-m",
        "hydra/launcher=slurm",
        "hydra.launcher.time=90",
        "seed=1,2",
        "hydra.launcher.mem=9G",
    ]
    assert plan.main([f"io.results={tmp_path}", *DATA, *words]) == 0
    header = [x for x in capsys.readouterr().out.splitlines() if x.startswith("#SBATCH")]
    assert "#SBATCH --time=90" in header
    assert "#SBATCH --mem=9G" in header
    assert any(line.startswith("#SBATCH --array=0-1") for line in header)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_plans_and_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('heavy:', {'torch', 'timm'} & set(sys.modules)))\n"
        "from segsweep.__main__ import main\nmain()"
    )
    command = [sys.executable, "-c", code, "-m", "seed=1,2", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "2 runs: 2 to run" in done.stdout
    assert done.stdout.endswith("heavy: set()\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_probe_measures_what_nothing_is_known_of(tmp_path: Path, planned) -> None:
    words = ["-m", "peft=frozen,lora", "trainer.accelerator=cpu", "hparams.epochs=400"]
    frozen, lora = planned(*words, "--probe").values()
    assert frozen["source"] == lora["source"] == "a probe here"
    assert 0 < frozen["hours"] < lora["hours"]
    assert lora["memory"] > 2**27
    assert list(tmp_path.iterdir()) == []

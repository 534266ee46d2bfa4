"""`logs` and `prune`: what a run said, and what of it may go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.owner import owned
from segsweep.run.identity import Run
from segsweep.sweeps.leftovers import delete, leftovers
from segsweep.verbs import logs, prune
from tests.records import record, write


def run(results: Path, *words: str, state: str = "done") -> Path:
    """Make the directory of a run with a config that names it, and everything that may go."""
    made = Run(compose([f"io.results={results}", *words]))
    made.directory.mkdir(parents=True)
    made.prepare()
    if state in ("done", "failed"):
        text = json.dumps(made.head() | {"status": state, "error": {"traceback": "T\n  why"}})
        (made.directory / ("record.json" if state == "done" else "failed.json")).write_text(text)
    for name in ("last.ckpt", "delta.safetensors", "metrics.jsonl", "wandb/run"):
        (made.directory / name).parent.mkdir(exist_ok=True)
        (made.directory / name).write_bytes(b"x" * 3 * 2**20)
    return made.directory


def pruned(results: Path, *words: str) -> dict[str, set[str]]:
    """Prune, and return the files that are gone, by run."""
    before = {d: {p.name for p in d.iterdir()} for d in (results / "runs").iterdir()}
    assert prune.main(["--results", str(results), *words]) == 0
    return {d.name: files - {p.name for p in d.iterdir()} for d, files in before.items()}


def test_nothing_goes_without_yes(tmp_path: Path, capsys) -> None:
    failed_run = run(tmp_path, state="failed")
    assert pruned(tmp_path) == {failed_run.name: set()}
    out = capsys.readouterr().out
    assert "3.0 MiB" in out
    assert "1 runs: 2 leftovers, 6.0 MiB to delete (--yes does it)" in out


def test_only_what_no_result_needs_goes(tmp_path: Path) -> None:
    done, failed = run(tmp_path, "seed=1"), run(tmp_path, "seed=2", state="failed")
    going_on = run(tmp_path, "seed=3", state="interrupted")
    synced = run(tmp_path, "seed=4")
    (synced / "wandb.json").write_text("{}")
    assert pruned(tmp_path, "--yes") == {
        done.name: {"last.ckpt"},
        failed.name: {"last.ckpt", "delta.safetensors"},
        going_on.name: set(),
        synced.name: {"last.ckpt", "wandb"},
    }
    assert (done / "delta.safetensors").exists()


def test_runs_whose_config_names_another_run_are_superseded(tmp_path: Path) -> None:
    old_run = run(tmp_path, "data.train=7")
    text = (old_run / "config.yaml").read_text()
    assert "train: 7" in text
    (old_run / "config.yaml").write_text(text.replace("train: 7", "train: 8"))
    # as a version left it that named runs otherwise: no other run has taken its place
    assert pruned(tmp_path, "--yes") == {old_run.name: {"last.ckpt"}}
    record = json.loads((old_run / "record.json").read_text())
    (old_run / "record.json").write_text(json.dumps(record | {"weights": {"sha256": "0" * 64}}))
    (old_run / "last.ckpt").write_bytes(b"x")
    assert pruned(tmp_path, "--yes") == {old_run.name: {"last.ckpt", "delta.safetensors"}}


def test_runs_whose_data_are_gone_are_not_superseded(tmp_path: Path) -> None:
    one = run(tmp_path)
    text = (one / "config.yaml").read_text()
    gone = text.replace("segsweep.data.sets.digits", "segsweep.data.gone")
    (one / "config.yaml").write_text(gone)
    assert pruned(tmp_path, "--yes") == {one.name: {"last.ckpt"}}


def test_runs_that_cannot_be_read_are_named_and_the_others_pruned(tmp_path: Path, capsys) -> None:
    no_state, no_config = run(tmp_path, "seed=1", state="failed"), run(tmp_path, "seed=2")
    (no_state / "failed.json").write_text('{"status": ')
    (no_config / "config.yaml").write_text("model: [")
    done = run(tmp_path, "seed=3")
    (tmp_path / "features").mkdir()
    assert pruned(tmp_path, "--yes") == {
        no_state.name: set(),
        no_config.name: {"last.ckpt"},
        done.name: {"last.ckpt"},
    }
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith(no_state.name)] == [
        f"{no_state.name} is left alone"
    ]
    (line,) = (line for line in lines if line.startswith(no_config.name))
    assert "may be superseded, but its config: " in line
    assert (tmp_path / "features").exists()  # the unreadable run may need them


def test_a_run_that_began_again_since_it_was_looked_at_is_left_alone(tmp_path: Path) -> None:
    one, other = run(tmp_path, "seed=1", state="failed"), run(tmp_path, "seed=2", state="failed")
    files, _ = leftovers([one, other], None, None)
    with owned(one):  # somebody has finished it meanwhile
        pass
    (line,) = delete(files)
    assert line == f"{one.name} is left alone: it has begun again"
    assert (one / "delta.safetensors").exists()
    assert not (other / "delta.safetensors").exists()
    files, _ = leftovers([one], None, None)
    with owned(one):
        assert f"belongs to process {os.getpid()}" in "".join(delete(files))
    assert (one / "last.ckpt").exists()


def test_features_stay_while_a_run_is_going_on(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "maps").write_bytes(b"x")
    live_run = run(tmp_path, state="failed")
    with owned(live_run):
        assert pruned(tmp_path, "--yes") == {live_run.name: set()}
    assert (tmp_path / "features").exists()
    pruned(tmp_path, "--yes", live_run.name)
    assert (tmp_path / "features").exists()
    pruned(tmp_path, "--yes")
    assert not (tmp_path / "features").exists()


def test_logs_end_with_the_traceback_of_a_failed_run(tmp_path: Path, capsys) -> None:
    one = run(tmp_path, state="failed")
    (one / "log.txt").write_text("".join(f"line {i}\n" for i in range(90)))
    assert logs.main([one.name, "--results", str(tmp_path), "-n", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("line 88\nline 89\n--- failed")
    assert text.endswith("T\n  why\n")
    logs.main([one.name, "--results", str(tmp_path), "-n", "0"])
    assert "line 0\n" in capsys.readouterr().out


def test_a_run_without_a_log_says_its_state(tmp_path: Path, capsys) -> None:
    (one,) = write(tmp_path, record("lora", 41.5))
    assert logs.main([one.name, "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{one.name}: no log yet (done)\n"


def test_logs_are_of_one_run(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 41.5), record("adapter", 40.0))
    with pytest.raises(UserError, match="2 runs"):
        logs.main([str(tmp_path), "--results", str(tmp_path)])


def test_following_shows_what_is_added_until_the_run_ends(tmp_path: Path) -> None:
    one = run(tmp_path, state="interrupted")
    (one / "log.txt").write_text("first\n")
    command = [sys.executable, "-m", "segsweep", "logs", str(one), "--follow"]
    with owned(one):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        with (one / "log.txt").open("a") as file:
            file.write("second\n")
        assert process.stdout.readline() == "second\n"
    assert process.communicate(timeout=60)[0] == ""


@pytest.mark.parametrize("verb", ["logs", "prune", "sync", "status"])
def test_verbs_over_files_import_no_torch(tmp_path: Path, verb: str) -> None:
    one = run(tmp_path, state="failed")
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('heavy:', {'torch', 'timm', 'scipy'} & set(sys.modules)))\n"
        "from segsweep.__main__ import main\nmain()"
    )
    command = [sys.executable, "-c", code, verb, one.name, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: set()\n")

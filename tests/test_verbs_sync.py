"""Finished runs reach Weights & Biases once and whole, however often sync is given."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segsweep.base.errors import UserError
from segsweep.run.folder import file_facts
from segsweep.sweeps.names import remember
from segsweep.sweeps.sync import send
from tests.records import record, write
from tests.wandb_server import Server, serving

KEY = "a" * 40


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("SLURM_JOB_ID", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two finished runs with curves and a failed one; the sweep `ranks` holds one of them."""
    runs = [record("lora", 41.5), record("adapter", 40.0), record("lora", None, rank=2)]
    directories = write(tmp_path, *runs)
    for directory in directories:
        lines = [
            {"step": step, "epoch": step / 4, "time": 1e9 + step, "loss": 9.0 - step}
            for step in range(1, 5)
        ]
        lines.append({"step": 4, "epoch": 1.0, "time": 1e9 + 5, "segm_AP": 41.5})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / "metrics.jsonl").write_text(text)
    remember(tmp_path, "ranks", {directories[0].name: []})
    return tmp_path


def sync(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type the verb; wandb reads its environment once per process."""
    command = [sys.executable, "-m", "segsweep", "sync", *words, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_finished_runs_are_sent_once_with_their_curve(results: Path, server: Server) -> None:
    for expected in ("2 of them not sent yet", "0 of them not sent yet"):
        done = sync(results)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert len(server.rows) == 2
    for rows in server.rows.values():
        assert [row["_step"] for row in rows] == [1, 2, 3, 4]  # the failed run is not sent
        assert rows[-1]["segm_AP"] == 41.5
        assert rows[0]["_timestamp"] == 1e9 + 1


def test_a_curve_that_is_not_the_recorded_one_is_not_sent(results: Path) -> None:
    directory = next(path.parent for path in results.glob("runs/*/record.json"))
    facts = json.loads((directory / "record.json").read_text()) | {"files": file_facts(directory)}
    (directory / "record.json").write_text(json.dumps(facts))
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "epoch": 1.25, "time": 1.0, "loss": 0.0}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is not the file that record\.json"):
        send(directory, {})


def test_what_the_server_has_is_not_sent_again(results: Path, server: Server) -> None:
    sync(results, "ranks")
    ((run, rows),) = server.rows.items()
    del rows[2:]  # the connection broke after two rows, before the marker was written
    (marker,) = results.glob("runs/*/wandb.json")
    marker.unlink()
    sync(results, "ranks")
    assert [row["_step"] for row in server.rows[run]] == [1, 2, 3, 4]


def test_runs_keep_their_id_and_may_get_a_project(results: Path, server: Server) -> None:
    sync(results, "ranks", "--project", "mine")
    ((run, about),) = server.about.items()
    assert run == record("lora", 41.5)["id"]
    assert about["project"] == "mine"
    assert about["displayName"].endswith(run)


def test_without_a_key_nothing_is_tried(results: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = sync(results)
    assert done.returncode == 2
    assert "no key for" in done.stderr
    assert "WANDB_API_KEY" in done.stderr


def test_without_a_network_the_error_comes_at_once(results: Path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    begun = time.monotonic()
    done = sync(results)
    assert time.monotonic() - begun < 60  # wandb itself would try for 100 s
    assert done.returncode == 2
    assert f"127.0.0.1:{port} does not answer" in done.stderr
    assert not list(results.glob("runs/*/wandb.json"))


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "online"),
        ({"SLURM_JOB_ID": "1"}, "offline"),
        ({"SLURM_JOB_ID": "1", "WANDB_MODE": "online"}, "online"),
        ({"WANDB_API_KEY": "", "HOME": "/nowhere"}, "offline"),
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "offline"),
    ],
)
def test_jobs_log_offline_unless_told_otherwise(
    server: Server, variables: dict[str, str], mode: str
) -> None:
    code = "from segsweep.run.logger.wandb import Wandb; print(Wandb('', 'wandb').mode())"
    command = [sys.executable, "-c", code]
    environment = os.environ | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == mode

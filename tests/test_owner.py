"""A directory has one owner, however its processes sleep, and who was replaced changes nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from segsweep.base import owner
from segsweep.base.config import compose
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_json
from segsweep.base.owner import Busy, LostOwnership, attempts, beat_of, owned, owner_of
from segsweep.data.items import MANIFEST
from segsweep.data.store import ensure
from segsweep.run.identity import Run, State
from tests.runs import TINY, contents, curve, files_of_at_most, left_owner, logged_steps, the_run

ELSEWHERE = """
import socket, sys
socket.gethostname = lambda: "elsewhere"
from segsweep.__main__ import main
main()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(compose([f"io.results={tmp_path}"]))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be a process of another machine from now on."""

    def become(name: str) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: name)

    return become


def scheduled(script: str, folder: Path) -> list[dict[str, Any]]:
    """What came of all schedules of a script of tests/interleaved.py."""
    command = [sys.executable, "-m", "tests.interleaved", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_that_sleep_on_their_way_and_a_third_make_one_owner(tmp_path: Path) -> None:
    outcomes = scheduled("three", tmp_path)
    assert len(outcomes) > 90
    assert [x for x in outcomes if x["ends"] != ["busy", "busy", "owns"]] == []


def test_who_wakes_up_in_a_write_after_it_was_replaced_changes_nothing(tmp_path: Path) -> None:
    outcomes = scheduled("replaced", tmp_path)
    replaced = [x for x in outcomes if x["ends"] == ["lost", "done"]]
    assert len(replaced) > 5
    assert {x["text"] for x in replaced} == {"b"}
    assert {tuple(x["files"]) for x in outcomes} == {("file", "owner.1", "owner.2")}
    slept = [x["steps"] for x in replaced]  # before it owned, or after it wrote: nothing is lost
    assert slept == list(range(slept[0], slept[-1] + 1))


def test_an_owner_gives_signs_of_life_and_one_that_stops_can_be_replaced(
    tmp_path: Path, machine, monkeypatch
) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.02)
    assert beat_of(tmp_path) is None
    with owned(tmp_path):
        first = beat_of(tmp_path)
        end = time.monotonic() + 20
        while beat_of(tmp_path) == first:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert beat_of(tmp_path) is None
    left_owner(tmp_path)
    silent = beat_of(tmp_path)
    with pytest.raises(Busy), owned(tmp_path, silent):  # its machine says that it lives
        pass
    machine("elsewhere")
    with pytest.raises(Busy), owned(tmp_path):
        pass
    os.utime(owner_of_file(tmp_path), ns=(0, 0))
    with pytest.raises(Busy), owned(tmp_path, silent):
        pass
    with owned(tmp_path, beat_of(tmp_path)) as mine:
        assert mine.number == attempts(tmp_path)


def owner_of_file(directory: Path) -> Path:
    return directory / f"owner.{attempts(directory)}"


def test_whose_file_was_deleted_by_hand_is_no_owner_any_more(tmp_path: Path) -> None:
    """As the message of Busy says, for a process that is thought to be gone."""
    with owned(tmp_path) as slow:
        (tmp_path / "owner.1").unlink()
        with owned(tmp_path) as fast:
            assert (slow.number, fast.number) == (1, 1)
            fast.check()
            with pytest.raises(LostOwnership):
                slow.check()


def test_the_owner_of_an_earlier_version_counts(tmp_path: Path) -> None:
    left_owner(tmp_path)
    owner_of_file(tmp_path).rename(tmp_path / "owner")
    (tmp_path / "owner.1").unlink()
    assert (owner_of(tmp_path) or {})["pid"] == os.getpid()
    with pytest.raises(Busy, match=f"delete {tmp_path / 'owner'}$"), owned(tmp_path):
        pass
    gone = (read_json(tmp_path / "owner") or {}) | {"started_ticks": "1"}
    (tmp_path / "owner").write_text(json.dumps(gone))
    with owned(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["owner.1"]


def test_a_file_system_without_hard_links_is_named_with_its_cure(run: Run, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(UserError, match=r"no hard links .*io\.results=") as error:
        run.prepare()
    assert str(run.directory) in str(error.value)
    assert list(run.directory.iterdir()) == []


@pytest.mark.parametrize("torn", ["", "7", "{}", "\xff"])
def test_a_damaged_file_of_an_owner_is_named_with_its_cure(tmp_path: Path, torn: str) -> None:
    left_owner(tmp_path, started_ticks="1")
    owner_of_file(tmp_path).write_text(torn, encoding="latin-1")
    with pytest.raises(Damaged, match=r"owner\.2: .*delete it"), owned(tmp_path):
        pass


def test_a_conversion_that_wakes_up_leaves_that_of_who_replaced_it(
    tmp_path: Path, machine, monkeypatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    folder = tmp_path / "set-key"

    def build(new: Path, text: str) -> None:
        (new / MANIFEST).write_text(text)

    def slow(new: Path) -> None:
        build(new, "slow")
        machine("elsewhere")
        ensure(folder, lambda new: build(new, "fast"))

    ensure(folder, slow)
    assert (folder / MANIFEST).read_text() == "fast"
    assert [path.name for path in folder.iterdir()] == [MANIFEST]
    assert {path.name for path in tmp_path.glob(".converting/*/*")} == {"owner.1", "owner.2"}


def test_a_full_disk_leaves_the_old_file_and_no_other(run: Run) -> None:
    run.prepare()
    run.write("delta.safetensors", b"old")
    before = contents(run.directory)
    with files_of_at_most(512), pytest.raises(OSError, match="large"):
        run.write("delta.safetensors", b"x" * 1000)
    assert contents(run.directory) == before
    assert not list(run.directory.glob(".*"))


def test_a_record_that_does_not_fit_on_the_disk_is_a_failure_with_a_cure(run: Run) -> None:
    with files_of_at_most(20_000), pytest.raises(UserError, match="make room"):
        run.once(lambda _: {"classes": "x" * 30_000})
    assert run.state() is State.FAILED


def test_a_run_that_was_finished_while_its_folder_was_awaited(run: Run, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # an earlier attempt of a job is waited for
    owns, calls = threading.Event(), []

    def earlier() -> None:
        other = Run(run.config)
        with other.owning():
            owns.set()
            time.sleep(0.7)
            other._train(lambda _: {"by": "earlier"})

    thread = threading.Thread(target=earlier)
    thread.start()
    assert owns.wait(timeout=20)
    assert run.once(lambda _: calls.append(1) or {})["by"] == "earlier"
    thread.join()
    assert not calls


@pytest.mark.parametrize("end", ["record", "failure", "signal"])
def test_a_run_that_was_taken_over_ends_without_a_word_in_its_folder(
    run: Run, machine, monkeypatch, end: str, capsys
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # begun anew on another node: SLURM took one for dead
    before: dict[str, bytes] = {}

    def slow(_: Run) -> dict[str, Any]:
        run.write("last.ckpt", b"slow")
        name = socket.gethostname()
        machine("elsewhere")
        Run(run.config).once(fast)
        machine(name)
        before.update(contents(run.directory))
        if end == "failure":
            raise ValueError("its files are gone")
        if end == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    def fast(other: Run) -> dict[str, Any]:
        assert (run.directory / "last.ckpt").read_bytes() == b"slow"
        other.write("delta.safetensors", b"fast")
        return {"by": "fast"}

    with pytest.raises(LostOwnership, match="another process took over"):
        run.once(slow)
    assert contents(run.directory) == before
    assert (read_json(run.directory / "record.json") or {})["by"] == "fast"
    assert not list(run.directory.glob(".*"))
    assert "failed" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_process_that_wakes_up_after_another_has_finished_its_run(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    pipes |= {"cwd": tmp_path, "env": environment, "stdin": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-m", "segsweep", *TINY], **pipes) as first:
        end = time.monotonic() + 200
        while logged_steps(tmp_path) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        assert not (the_run(tmp_path) / "record.json").exists(), "too fast to be stopped"
        second = subprocess.run([sys.executable, "-c", ELSEWHERE, *TINY], timeout=300, **pipes)
        assert second.returncode == 0, second.stdout
        before, lines = contents(the_run(tmp_path)), curve(tmp_path)
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=200)[0]
    assert first.returncode == 2  # which no batch script requeues
    assert said.splitlines()[-1].startswith("segsweep: another process took over")
    assert contents(the_run(tmp_path)) == before
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 10))
    assert not list(the_run(tmp_path).glob(".*"))
    record = read_json(the_run(tmp_path) / "record.json") or {}
    assert record["files"].keys() == {"delta.safetensors", "metrics.jsonl", "predictions.jsonl.gz"}

"""Who can be asked whether an owner lives: not everybody of the same host name, or of one job."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segsweep.base import process
from segsweep.base.owner import Busy, owned, owner_of
from segsweep.base.process import is_here, is_live

GONE = 2**22 + 1  # no process of this machine has that number


@contextlib.contextmanager
def owned_by(
    directory: Path, monkeypatch: pytest.MonkeyPatch, host: str | None = None, **machine: str
) -> Iterator[None]:
    """Own a directory as a process of another machine or container does, which is gone here."""
    there = process.machine() | machine
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(process, "machine", lambda: there)
            patch.setattr(os, "getpid", lambda: GONE)
            patch.setattr(process, "process_started", lambda pid: "1")
            if host:
                patch.setattr("socket.gethostname", lambda: host)
            stack.enter_context(owned(directory))
        yield


@pytest.mark.parametrize(
    ("machine", "here"),
    [
        ({}, True),
        ({"processes": "pid:[1]"}, False),  # another container on this machine
        ({"id": "x", "boot": "y"}, False),  # another machine
        ({"id": "", "boot": "y"}, False),  # a container of another machine
        ({"id": "this", "boot": "y", "processes": "pid:[1]"}, True),  # this one before it restarted
    ],
)
def test_one_host_name_is_not_one_machine(tmp_path: Path, monkeypatch, machine, here) -> None:
    mine = process.machine() | {"id": "this"}
    monkeypatch.setattr(process, "machine", lambda: mine)
    with owned_by(tmp_path, monkeypatch, **machine):
        owner = owner_of(tmp_path)
        assert owner is not None
        assert is_here(owner) == here
        assert is_live(owner) != here  # one that is asked for is gone
        with contextlib.nullcontext() if here else pytest.raises(Busy), owned(tmp_path):
            pass


def test_tasks_of_one_job_are_no_earlier_attempts_of_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")  # no SLURM to be asked
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with owned_by(tmp_path, monkeypatch, "n2"):
        monkeypatch.setenv("SLURM_PROCID", "0")
        with pytest.raises(Busy), owned(tmp_path):
            pass
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with owned(tmp_path):
            pass


def test_a_process_knows_how_long_it_has_been_running() -> None:
    code = "import time; time.sleep(0.3); from segsweep.base.process import age; print(age())"
    before = time.monotonic()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.3 <= float(said.stdout) <= time.monotonic() - before + 0.02  # a clock tick or two

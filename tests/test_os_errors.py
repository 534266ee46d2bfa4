"""What the system refuses, a full disk, say, is a sentence with path and cure; nothing is torn."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from segsweep.__main__ import main
from segsweep.base.files import write_text, write_texts
from segsweep.sweeps.names import remember
from tests.damage import TINY
from tests.records import record, write
from tests.sites import Site

SLURM = {"sbatch": "77\n", "scontrol": "MaxArraySize = 1000\n"}  # a controller without jobs
Verb = Callable[[Path], list[str]]
VERBS: dict[str, Verb] = {
    "submission": lambda r: ["-m", "hydra/launcher=slurm", "seed=7,8", f"io.results={r}", *TINY],
    "a sweep here": lambda r: ["-m", "seed=7,8", f"io.results={r}", *TINY],
    "one run": lambda r: ["seed=9", f"io.results={r}", *TINY],
    "the name of a sweep": lambda r: ["-m", "seed=1", "io.sweep=x", f"io.results={r}", *TINY],
    "collect": lambda r: ["collect", "--results", str(r)],
    "table": lambda r: ["table", "all", "--out", f"{r}/tables", "--results", str(r)],
    "report": lambda r: ["report", "--no-pictures", "--results", str(r)],
    "plan --save": lambda r: ["plan", "seed=1", "--save", "x", f"io.results={r}", *TINY],
}
SOME = ("submission", "table")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own with results on it: two runs, and tables of before."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        write(place / "results", record("lora", 41.0), record("full_head", 42.0))
        remember(place / "results", "known", {})
        (place / "results" / "tables").mkdir()
        (place / "results" / "tables" / "ablation.md").write_text("of before\n")
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fill(place: Path) -> None:
    with suppress(OSError), (place / "fill").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def told(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["segsweep", *words])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    captured = capfd.readouterr()
    return end.value.code, captured.out + captured.err


@pytest.mark.parametrize("state", ["full", "read-only"])  # all verbs, some of them
def test_a_disk_that_takes_nothing_is_named_by_every_verb(
    state: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    Site(site, monkeypatch).knows(says=SLURM)
    if state == "full":
        fill(disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = content(disk / "results")
    for name, words in VERBS.items():
        if state == "read-only" and name not in SOME:
            continue
        status, said = told(words(disk / "results"), monkeypatch, capfd)
        assert status == 2, name
        assert str(disk / "results") in said, name
        assert "No space left" in said if state == "full" else "Read-only" in said, name
        assert "Traceback" not in said, name
        assert content(disk / "results") == before, name


def test_tables_that_belong_together_are_written_all_or_none(disk: Path) -> None:
    texts = {disk / "results" / "tables" / f"{n}.md": n * 200_000 for n in "ab"}
    write_text(next(iter(texts)), "of before")
    before = content(disk)
    with pytest.raises(OSError, match="No space left") as refused:
        write_texts(texts)
    assert refused.value.filename == str(disk / "results" / "tables" / "b.md")
    assert content(disk) == before


def test_a_folder_of_somebody_else_is_named() -> None:
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv to become somebody else")
    somebody = ["setpriv", "--reuid=65534", "--clear-groups"]
    command = [*somebody, sys.executable, "-m", "segsweep", "table", "all", "--out"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder / "results", record("lora", 41.0))
        if subprocess.run([*command[:-2], "--help"], capture_output=True).returncode:
            pytest.skip("nobody else can read this installation")
        words = [f"{folder}/tables", "--results", f"{folder}/results"]
        done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"segsweep: {folder}/tables: Permission denied; ask who owns it, or name another folder, "
        "then give the same command\n"
    )


def test_what_is_printed_needs_room_too(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 41.0))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "segsweep", "status", "--results", str(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("segsweep: No space left on device; make room")


def test_ctrl_c_while_composing_is_one_line(tmp_path: Path) -> None:
    words = ["-m", "seed=range(0,3000)", f"io.results={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segsweep", *words], stderr=subprocess.PIPE, text=True
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    lines = said.splitlines()
    assert lines == ["segsweep: interrupted"]
    assert process.returncode in (130, -signal.SIGINT)  # a shell calls both 130

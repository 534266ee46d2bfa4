"""SLURM's programs as they may stand on a site's PATH: what they know, and what they add to it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """#!{python} -SE
import json, os, sys
from pathlib import Path
folder = Path({folder!r})
site = json.loads((folder / "site.json").read_text())
program, words = Path(sys.argv[0]).name, sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([program, *words]) + "\\n")
options = dict(word.partition("=")[::2] for word in words)
out = sys.stdout.buffer
out.write(bytes.fromhex(site.get("banner", "")))
if program in site.get("fails", {{}}):
    sys.exit(site["fails"][program])
if program == "squeue":
    silent = folder / "silent"
    if silent.exists() and (left := int(silent.read_text())):
        silent.write_text(str(left - 1))
        sys.exit()
    user = options.get("--user", site["me"] if "--me" in words else None)
    header = [] if "--noheader" in words else [("JOBID", "STATE", "COMMENT", user)]
    for number, state, comment, whose in [*header, *site.get("jobs", [])]:
        if user in (None, whose):
            row = options["--format"].replace("%i", number).replace("%T", state)
            out.write((row.replace("%k", comment) + "\\n").encode())
elif program in site.get("says", {{}}):
    out.write(site["says"][program].encode())
"""
PROGRAMS = ("squeue", "sacct", "scontrol", "sbatch", "scancel", "sleep")  # that takes no time


class Site:
    """A cluster of which only the words are there; `knows` says what its programs answer."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {"me": str(os.getuid())}
        self.knows(jobs=[])
        for name in PROGRAMS:
            program = folder / name
            program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            monkeypatch.delenv(name)

    def knows(self, **facts: Any) -> None:
        """Change what it answers.

        `jobs`: rows of id, state, comment and uid; `banner`: hex of what is printed before;
        `says`: the answers of other programs; `fails`: programs, and their errors.
        """
        self.facts |= facts
        (self.folder / "site.json").write_text(json.dumps(self.facts))

    def keeps_silent(self, times: int) -> None:
        """Let squeue end well and print nothing, so many times."""
        (self.folder / "silent").write_text(str(times))

    def calls(self, program: str) -> list[list[str]]:
        """Return with which words a program was called."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [words for name, *words in map(json.loads, lines) if name == program]

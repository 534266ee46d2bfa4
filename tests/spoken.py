"""What the command line says to many lines of words: one process hears them all, one by one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Answer:
    """How a command line ended, and what it said."""

    status: int
    out: str
    err: str
    left: list[str]
    """Files and folders that it left in its folder."""


def answers(
    lines: Sequence[Sequence[str]], cwd: Path, light: bool = True
) -> dict[tuple[str, ...], Answer]:
    """Give all command lines in a process; `light` ones must not import torch."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.spoken", json.dumps([list(line) for line in lines])],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert not (light and told["torch"]), "torch was imported"
    pairs = zip(lines, told["answers"], strict=True)
    return {tuple(line): Answer(*answer) for line, answer in pairs}


def answer(line: list[str]) -> Answer:
    """Give one command line in this process."""
    from segsweep.__main__ import main

    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["segsweep", *line]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    left = sorted(path.name for path in Path().iterdir())
    return Answer(status, out.getvalue(), err.getvalue(), left)


if __name__ == "__main__":
    heard = [vars(answer(line)) for line in json.loads(sys.argv[1])]
    told = [[a["status"], a["out"], a["err"], a["left"]] for a in heard]
    print(json.dumps({"answers": told, "torch": "torch" in sys.modules}))

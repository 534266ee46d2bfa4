"""One file of a results folder damaged at random: every verb names it or does without it.

No verb ends with anything but its status or one sentence; no good run is touched, or left out of
what is shown. SEGSWEEP_MUTATIONS=1000 damages that many files instead of a few dozen.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from segsweep.base.errors import UserError, told
from segsweep.base.terminal import printable
from tests.damage import TINY, damage, files, make
from tests.sites import Site

NUMBER = int(os.environ.get("SEGSWEEP_MUTATIONS", "24"))
SLURM = {"sbatch": "77\n", "scontrol": "MaxArraySize = 1000\n"}  # a controller without jobs
Verb = Callable[[Path, str, list[str]], list[str]]
"""Command line from the results folder, the damaged run and the good ones."""

LIGHT: dict[str, Verb] = {  # several of them for each damage
    "status": lambda r, bad, good: ["status"],
    "status --json": lambda r, bad, good: ["status", "--json"],
    "status of a sweep": lambda r, bad, good: ["status", "pilot"],
    "logs": lambda r, bad, good: ["logs", bad],
    "prune": lambda r, bad, good: ["prune"],
    "table": lambda r, bad, good: ["table", "ablation", "--trace"],
    "sync": lambda r, bad, good: ["sync"],
    "cancel": lambda r, bad, good: ["cancel", "--all"],
    "settle": lambda r, bad, good: ["plan", "--settle", "ablation", f"io.results={r}"],
}
HEAVY: dict[str, Verb] = {  # one of them now and then
    "plan": lambda r, bad, good: ["plan", "-m", "seed=0,1,2,3,4,5", f"io.results={r}", *TINY],
    "report": lambda r, bad, good: ["report", "--no-pictures"],
    "compare": lambda r, bad, good: ["compare", *good[:1], bad, "--out", f"{r}/compared"],
    "merge": lambda r, bad, good: ["merge", f"run={bad}", "force=true"],
    "analyse": lambda r, bad, good: ["analyse", bad, *good[:2]],
    "retry": lambda r, bad, good: ["retry", "--all", "--slurm"],
    "train": lambda r, bad, good: ["train", "-m", "seed=0,1", f"io.results={r}", *TINY],
    "collect": lambda r, bad, good: ["collect"],
    "predict val": lambda r, bad, good: ["predict", "split=val"],
    "export": lambda r, bad, good: ["export", f"run={bad}", "format=bundle", "force=true"],
    "table --out": lambda r, bad, good: ["table", "all", "--out", f"{r}/tables"],
    "report pictures": lambda r, bad, good: ["report"],
    "hf_lora": lambda r, bad, good: ["export", f"run={bad}", "format=hf_lora", "force=true"],
    "prune --yes": lambda r, bad, good: ["prune", "--yes"],
    "predict": lambda r, bad, good: ["predict", bad, f"images={r}/pictures"],
}
WRITING = ("retry", "prune --yes")  # into the folders of runs that are not done
VERBS = LIGHT | HEAVY
OVERALL = {  # verbs over many runs, and where each good run must stand: its word there
    "status": "name", "status --json": "name", "report": "name", "report pictures": "name",
    "table": "done", "collect": "done", "table --out": "done",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Path]]]:
    """Results, and the folders of their runs; SLURM answers, and nobody is told to stop."""

    def kill(pid: int, signum: int) -> None:
        assert signum == 0, f"{pid} was told to stop"

    with pytest.MonkeyPatch.context() as patch:
        Site(tmp_path_factory.mktemp("site"), patch).knows(says=SLURM)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(os, "kill", kill)  # a damaged owner must not make us kill anybody
        folder = tmp_path_factory.mktemp("base") / "results"
        with redirect_stdout(io.StringIO()):
            runs = make(folder)
        yield folder, runs


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Do not wait for ever."""

    def late(signum: int, frame: object) -> None:
        raise AssertionError(f"takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def told_by(words: list[str], results: Path) -> tuple[int, str]:
    """Run a verb as the command line does; return its status and what is printed."""
    file = import_module(f"segsweep.verbs.{words[0]}")
    if words[0] not in ("plan", "train"):
        words = [*words, "--results", str(results)]
    said, status = io.StringIO(), 0
    argv, sys.argv = sys.argv, ["segsweep", *words[1:]]
    try:
        with redirect_stdout(said), redirect_stderr(said), in_time(60):
            status = file.main() or 0
    except SystemExit as end:
        status = int(end.code or 0)
    except UserError as error:
        status, _ = 2, said.write(f"segsweep: {error}")
    except OSError as error:
        if not told(error):
            raise
        status, _ = 2, said.write(told(error))
    finally:
        sys.argv = argv
    return status, said.getvalue()


def shown(verb: str, said: str, results: Path) -> str:
    """What a verb over many runs shows: on the terminal, or in what it writes."""
    if verb.startswith("report"):
        return (results / "report.html").read_text()
    if verb == "collect":
        return (results / "tables" / "runs.csv").read_text()
    return (results / "tables" / "ablation.csv").read_text() if verb == "table --out" else said


def try_one(base: Path, runs: list[Path], scratch: Path, random: Random, names: list[str]) -> None:
    """Damage one file of one run; let verbs work with it, and look at the others."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(base, scratch, symlinks=True)
    bad, *good = random.sample(runs, len(runs))
    good.sort(key=lambda run: not (run / "record.json").exists())
    path = random.choice(files(scratch, scratch / "runs" / bad.name))
    how = damage(path, random)
    done = [run for run in good if (run / "record.json").exists()]
    for name in names:
        words = VERBS[name](scratch, bad.name, [run.name for run in good])
        case = f"{name}: {path.relative_to(scratch)}: {how}"
        try:
            _, said = told_by(words, scratch)
        except BaseException as error:
            raise AssertionError(case) from error
        assert said == printable(said), case
        assert "Traceback" not in said.replace("Traceback (most recent call last)", "", 1), case
        if name in OVERALL and not said.startswith("segsweep: "):
            everything = shown(name, said, scratch)
            for run in good if OVERALL[name] == "name" else done:
                key = run.name if OVERALL[name] == "name" else run.name.rpartition("-")[2]
                assert key in everything, f"{case}: {run.name} is not shown: {said}"
        for run in done:
            kept = scratch / "runs" / run.name
            assert content(kept) == content(run), f"{case}: {run.name} was changed"
        for run in good if name not in WRITING else ():
            assert content(scratch / "runs" / run.name) == content(run), f"{case}: {run.name}"


def test_every_verb_copes_with_a_damaged_file(
    base: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    folder, runs = base
    light, heavy = cycle(LIGHT), cycle(HEAVY)
    for number in range(NUMBER):
        names = [next(light) for _ in range(3)] + ([next(heavy)] if number % 4 == 0 else [])
        try_one(folder, runs, tmp_path / "results", Random(number), names)

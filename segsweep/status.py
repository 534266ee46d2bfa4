"""The verb `status`: one line per run directory, computed from its files at the time of asking."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segsweep.sweep.files import read_json
from segsweep.sweep.run import State, state_of

TAILS = (1 << 13, 1 << 18)  # bytes at the end of a curve in which its last lines are looked for
EPOCHS = re.compile(rb"^hparams:\n(?:[ \t]+.*\n)*?[ \t]+epochs: (\d+)", re.MULTILINE)
LOGGED = ("step", "epoch", "time")  # what every line of a curve begins with


@dataclass(frozen=True)
class Status:
    """What the files of a run say now; None is what they do not say.

    Epoch and step are those of the last line of the curve, of a finished run those of its best.
    """

    run: str
    state: str
    epoch: float | None = None
    epochs: int | None = None
    step: int | None = None
    metric: str | None = None
    value: float | None = None
    note: str = ""


def main(argv: list[str] | None = None) -> int:
    """Print the state of every run."""
    parser = argparse.ArgumentParser("python -m segsweep status", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    options = parser.parse_args(argv)
    runs = [status(directory) for directory in directories(options.results)]
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
    elif runs:
        print("\n".join(lines(runs)))
    else:
        print(f"No runs in {options.results / 'runs'} yet.")
    return 0


def directories(results: Path) -> list[Path]:
    """Return the run directories below a results folder, by name."""
    if not (results / "runs").is_dir():
        return []
    return sorted(Path(entry.path) for entry in os.scandir(results / "runs") if entry.is_dir())


def status(directory: Path) -> Status:
    """Compute what the files of one run say. A file that is no JSON makes its state unreadable."""
    try:
        state = state_of(directory)
        said = _record(directory) if state is State.DONE else _curve(directory)
        return Status(directory.name, state.value, note=_note(directory, state), **said)
    except (ValueError, KeyError, TypeError) as error:
        return Status(directory.name, "unreadable", note=f"{type(error).__name__}: {error}")


def lines(runs: list[Status]) -> Iterator[str]:
    """Return aligned lines for a terminal, the totals last."""
    cells = [(r.state, r.run, _progress(r), _metric(r)) for r in runs]
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    for row, run in zip(cells, runs, strict=True):
        aligned = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join((*aligned, run.note)).rstrip()
    totals = Counter(run.state for run in runs)
    yield f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in totals.most_common())


def _record(directory: Path) -> dict[str, Any]:
    """Return when a finished run was best, and its first metric then."""
    record = read_json(directory / "record.json") or {}
    best = record.get("best") or {}
    found = {"epochs": record["config"]["hparams"]["epochs"]}
    found |= {"epoch": best.get("epoch"), "step": best.get("step")}
    for name, metric in record.get("metrics", {}).items():
        return found | {"metric": name, "value": metric["value"]}
    return found


def _curve(directory: Path) -> dict[str, Any]:
    """Return progress and last metric of an unfinished run from the end of its curve."""
    found: dict[str, Any] = {"epochs": _epochs(directory)}
    for size in TAILS:
        curve = _tail(directory / "metrics.jsonl", size)
        if curve:
            found |= {"step": curve[-1]["step"], "epoch": curve[-1]["epoch"]}
        # lines of training steps carry a learning rate, those of validations metrics
        for line in reversed([line for line in curve if "lr" not in line]):
            name = next(key for key in line if key not in LOGGED)
            return found | {"metric": name, "value": line[name]}
    return found


def _tail(path: Path, size: int) -> list[dict[str, Any]]:
    """Return the whole lines among the last `size` bytes of a file, none if it is absent."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - size)
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return []
    whole = text.rpartition(b"\n")[0].split(b"\n")[1 if start else 0 :]
    return [json.loads(line) for line in whole if line]


def _epochs(directory: Path) -> int | None:
    """Return hparams.epochs of the frozen config; a regular expression is 100 times a parser."""
    try:
        found = EPOCHS.search((directory / "config.yaml").read_bytes())
    except FileNotFoundError:
        return None
    return int(found[1]) if found else None


def _note(directory: Path, state: State) -> str:
    """Return who runs it, or why it failed."""
    if state is State.RUNNING:
        owner = read_json(directory / "owner")
        return f"process {owner['pid']} on {owner['host']}" if owner else ""
    if state is State.FAILED:
        error = (read_json(directory / "failed.json") or {}).get("error") or {}
        message = (error.get("message") or "").strip().splitlines()
        return ": ".join([error.get("type", "failed"), *message[:1]])
    return ""


def _progress(run: Status) -> str:
    if run.epoch is None:
        return "-"
    best = "best epoch" if run.state == State.DONE.value else "epoch"
    return f"{best} {run.epoch:g}" + (f" of {run.epochs}" if run.epochs else "")


def _metric(run: Status) -> str:
    return f"{run.metric} {run.value:.2f}" if run.metric and run.value is not None else "-"

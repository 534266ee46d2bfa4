"""The verb `sync`: send finished runs to Weights & Biases, each once, replayed from their files.

    python -m segsweep sync table2

Only finished runs are sent, from `metrics.jsonl` and `record.json`, under the run's own id: what
the server has already is not sent twice. `wandb.json` in the folder of a run says that it is
there. Give it where there is a network; jobs need none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_json
from segsweep.run.identity import now
from segsweep.run.logger.wandb import Wandb, obstacle, start
from segsweep.sweep.names import chosen

MARKER = "wandb.json"


def main(argv: list[str] | None = None) -> int:
    """Send the chosen runs that are finished and not sent yet.

    Raises UserError without key or network, before anything is sent.
    """
    parser = argparse.ArgumentParser("python -m segsweep sync", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders; default: all runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--project", help="default: that of the run's logger, else segsweep")
    parser.add_argument("--entity", help="default: that of the run's logger, else your own")
    parser.add_argument("--group", help="default: that of the run's logger")
    options = parser.parse_args(argv)
    runs = chosen(options.results, options.what)
    finished = [run for run in runs if (run / "record.json").exists()]
    waiting = [run for run in finished if not (run / MARKER).exists()]
    print(f"{len(runs)} runs: {len(finished)} finished, {len(waiting)} of them not sent yet")
    if waiting and (reason := obstacle()):
        raise UserError(f"sync: {reason}")
    own = {key: getattr(options, key) for key in ("project", "entity", "group")}
    for run in waiting:
        url = send(run, {key: value for key, value in own.items() if value})
        write_json(run / MARKER, {"url": url, "sent": now()})
        print(f"sent {run.name}: {url}", flush=True)
    return 0


def send(directory: Path, own: dict[str, str]) -> str:
    """Send one finished run and return its address; `own` takes the place of the logger's keys.

    Raises UserError when the server refuses.
    """
    record = read_json(directory / "record.json") or {}
    known = {f.name for f in fields(Wandb)}
    logger = {key: value for key, value in record["config"]["logger"].items() if key in known}
    settings = Wandb(**{**logger, **own})
    about = {"id": record["id"], "name": record["name"], "config": record["config"]}
    with tempfile.TemporaryDirectory(prefix="segsweep-sync") as folder:
        try:
            run = start(settings, **about, directory=Path(folder), mode="online")
        except Exception as error:  # of many kinds: refused key, unknown entity, ...
            raise UserError(f"sync: {directory.name}: {type(error).__name__}: {error}") from error
        try:
            _replay(run, directory / "metrics.jsonl")
            run.summary.update(summary(record))
            return run.url or run.path
        finally:
            run.finish()


def _replay(run: Any, curve: Path) -> None:
    """Log the lines of a curve that the server does not have."""
    known = run.step
    for text in curve.read_text(encoding="utf-8").splitlines() if curve.exists() else ():
        line = json.loads(text)
        step, time = line.pop("step"), line.pop("time")
        if step >= known:
            run.log(line | {"_timestamp": time}, step=step)


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the table of runs shows: final metrics, trained parameters, memory, seconds."""
    values = {name: metric["value"] for name, metric in record.get("metrics", {}).items()}
    for group in ("params", "memory", "seconds"):
        values |= {f"{group}/{key}": value for key, value in record.get(group, {}).items()}
    return {key: value for key, value in values.items() if value is not None}

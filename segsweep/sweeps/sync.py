"""Finished runs sent to Weights & Biases, each once, replayed from their files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import misfit, opened, write_json
from segsweep.run.folder import CURVE, known_hash, verified
from segsweep.run.identity import now
from segsweep.run.logger.wandb import Wandb, obstacle, start
from segsweep.run.shapes import curve, record_of

MARKER = "wandb.json"  # in the folder of a run that was sent
SENT = {"name": str, "config": {"logger": dict}}  # of a record, beside what every one has


def unsent(finished: Sequence[Path]) -> list[Path]:
    """Return the runs that were not sent yet."""
    return [run for run in finished if not (run / MARKER).exists()]


def check() -> None:
    """Raise UserError without key or network."""
    if reason := obstacle():
        raise UserError(f"sync: {reason}")


def send(directory: Path, changes: dict[str, str]) -> str:
    """Send one finished run and return its address; `changes` take the place of the logger's keys.

    Raises UserError when the server refuses, and for a curve that is not its record's.
    """
    record = record_of(directory) or {}
    if fault := misfit(record, SENT):
        raise Damaged(directory / "record.json", fault.removeprefix("."))
    path = verified(directory, record, CURVE) if known_hash(record, CURVE) else directory / CURVE
    keys = {f.name for f in fields(Wandb)}
    logger = {key: value for key, value in record["config"]["logger"].items() if key in keys}
    settings = Wandb(**{**logger, **changes})
    identity = {"id": record["id"], "name": record["name"], "config": record["config"]}
    with tempfile.TemporaryDirectory(prefix="segsweep-sync") as folder:
        try:
            run = start(settings, **identity, directory=Path(folder), mode="online")
        except Exception as error:  # of many kinds: refused key, unknown entity, ...
            raise UserError(f"sync: {directory.name}: {type(error).__name__}: {error}") from error
        try:
            _replay(run, path)
            run.summary.update(_summary(record))
            url = run.url or run.path
        finally:
            run.finish()
    write_json(directory / MARKER, {"url": url, "sent": now()})
    return url


def _replay(run: Any, path: Path) -> None:
    """Log the lines of a curve that the server does not have."""
    next_step = run.step
    try:
        with opened(path) as file:
            lines = [*curve(file)]
    except FileNotFoundError:
        lines = []
    for line in lines:
        step, time = line.pop("step"), line.pop("time")
        if step >= next_step:
            run.log(line | {"_timestamp": time}, step=step)


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the table of runs shows: final metrics, trained parameters, memory, seconds."""
    values = {name: metric["value"] for name, metric in record.get("metrics", {}).items()}
    for group in ("params", "memory", "seconds"):
        values |= {f"{group}/{key}": value for key, value in record.get(group, {}).items()}
    return {key: value for key, value in values.items() if value is not None}

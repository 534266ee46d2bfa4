"""Records of runs as one tidy table: a row per run, a dotted column per recorded value."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
"""The newest layout of a record that this version reads."""

FILES = ("record.json", "failed.json")
"""What a run leaves when it ends; a finished retry outlives the failure before it."""

LEFT_OUT = {"error.traceback", "optimizer"}
"""Long texts and lists, which stay in the records."""

WHOLE = {
    f"config.{key}"
    for key in ("hparams.lr_factors", "hparams.decays", "data.prompts", "model.backbone.kwargs")
}
"""Dicts whose keys are the user's. Each is one value, since no entries differ from some."""

Values = dict[str, Any]
"""One run: {"id": ..., "config.peft.rank": 4, "metrics.segm_AP.value": 41.2, ...}."""


@dataclass(frozen=True)
class Records:
    """All runs that ended, sorted by id, and the unreadable files with the reason for each."""

    runs: list[Values]
    unreadable: dict[Path, str]

    def frame(self) -> pd.DataFrame:
        """Return the runs as a data frame, for notebooks and CSV; gaps are None or NaN."""
        import pandas as pd

        return pd.DataFrame(self.runs, dtype=object)  # object: integers stay so beside gaps


def read(results: Path) -> Records:
    """Read `results/runs/*/record.json`, or `failed.json` where a run has no record.

    May be called while a sweep runs: files appear atomically, and runs without either file are
    left out.
    """
    runs: list[Values] = []
    unreadable: dict[Path, str] = {}
    for path, text in _texts(results / "runs"):
        try:
            runs.append(flatten(_checked(json.loads(text))))
        except ValueError as error:
            unreadable[path] = str(error)
    return Records(sorted(runs, key=lambda run: run["id"]), unreadable)


def flatten(record: dict[str, Any], prefix: str = "") -> Values:
    """Turn a nested record into {"config.peft.rank": 4, ...}; lists become JSON text."""
    values: Values = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in WHOLE:
            values |= flatten(value, f"{name}.")
        elif name not in LEFT_OUT:
            values[name] = (
                json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
            )
    return values


def _texts(runs: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the deciding file of each run directory with its content."""
    if not runs.is_dir():
        return
    for name in sorted(entry.name for entry in os.scandir(runs) if entry.is_dir()):
        for file in FILES:
            path = runs / name / file
            try:
                yield path, path.read_bytes()
            except FileNotFoundError:
                continue
            break


def _checked(record: object) -> dict[str, Any]:
    """Return the record if this version understands it, else raise ValueError with the reason."""
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    missing = [key for key in ("schema", "id", "status", "config") if key not in record]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    if not isinstance(record["schema"], int) or record["schema"] > SCHEMA:
        raise ValueError(f"schema {record['schema']}, this version of segsweep reads {SCHEMA}")
    for group in ("model", "peft", "data"):
        choice = record["config"].get(group)
        if not isinstance(choice, dict) or not isinstance(choice.get("name"), str):
            raise ValueError(f"its config names no {group}")
    return record

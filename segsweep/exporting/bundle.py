"""A run to hand on: a folder that is the run, with labels, a threshold, a card and how to load it.

It holds what `restore` needs (config.yaml, record.json, delta.safetensors), so every verb that
takes a run takes it. No path or name of the machine that trained it is left in it.
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.analysis.study import HALF
from segsweep.base.csv_files import as_csv
from segsweep.base.files import write_json, write_text
from segsweep.exporting.labels import facts, labels
from segsweep.run.folder import DELTA

if TYPE_CHECKING:
    from segsweep.run.restore import Restored

ELSEWHERE = re.compile(r"(?:/|~|\.\.[/\\]|[A-Za-z]:[/\\]).*", re.DOTALL)
LOGGER = {"name": "none"}
PRIVATE = ("predictions", "log", "files")  # of a record: files that are not handed on


def write(restored: Restored, folder: Path) -> list[str]:
    """Fill a folder; return what there is to say."""
    from omegaconf import OmegaConf

    from segsweep.exporting.card import measured, render

    directory, record = restored.directory, restored.record
    analysis, classes, lacking = measured(restored)
    best = (analysis or {}).get("best")
    score = best["score"] if best else HALF
    if (directory / DELTA).is_file():
        shutil.copyfile(directory / DELTA, folder / DELTA)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(configured(restored))))
    write_json(folder / "record.json", recorded(restored, analysis))
    chosen = {"score_threshold": score, "iou": analysis["iou"] if best and analysis else None}
    write_json(folder / "labels.json", facts(record) | chosen | {"classes": labels(record)})
    if analysis and "calibration" in analysis:
        write_text(folder / "calibration.csv", table(analysis["calibration"]["bins"]))
    measurements = {"analysis": analysis, "by_class": classes, "lacking": lacking}
    least = math.floor(1e4 * score) / 1e4  # so that four digits keep what has that score
    for file in ("card.md", "README.md"):
        write_text(folder / file, render(file, restored, folder, least=least, **measurements))
    return [f"  {lacking}"] if lacking else []


def configured(restored: Restored) -> dict[str, Any]:
    """Return the frozen config without what belongs to the machine."""
    from segsweep.base.config import IO, plain

    config = plain(restored.config)
    return portable(config) | {
        "io": plain(IO(features=f"{IO.results}/features")),
        "logger": LOGGER,
        "force": False,
    }


def recorded(restored: Restored, analysis: dict[str, Any] | None) -> dict[str, Any]:
    """Return the record, with the analysis even where it came later, without the machine."""
    from segsweep.task.base import kind

    record = {key: value for key, value in restored.record.items() if key not in PRIVATE}
    device = {key: value for key, value in record["device"].items() if key != "host"}
    changes = {"config": configured(restored), "device": device, "analysis": analysis}
    files = restored.record.get("files", {})
    changes |= {"files": {DELTA: files[DELTA]}} if DELTA in files else {}
    if kind(restored.config.data.task).dense:  # files that are not handed on may say it
        changes["data"] = record["data"] | {"background": restored.background}
    return portable(record | changes)


def portable(value: Any) -> Any:
    """Leave of paths to elsewhere their last part, in nested lists and dicts."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and ELSEWHERE.fullmatch(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def table(bins: list[list[Any]]) -> str:
    """Return the bins of a calibration as CSV."""
    width = 1 / len(bins)
    rows = [[round(k * width, 4), round((k + 1) * width, 4), *row] for k, row in enumerate(bins)]
    return as_csv([["score from", "to", "predictions", "mean score %", "right %"], *rows])

"""Published numbers in the form of our own runs: tables and figures are one function of both.

`reported/reported.csv` holds one printed number a line. Numbers of one setting on one data set
become one pseudo-run: {"origin": "reported", "config.peft.rank": 4, "metrics.segm_AP.value": ...}.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.results.settings import Values
from segsweep.results.wording import DATA, MODELS, QUANTITIES

FILE = Path("reported") / "reported.csv"
COLUMNS = (
    *("source", "table", "model", "backbone", "method", "method_params", "dataset", "metric"),
    *("value", "std", "unit", "params_m", "params_pct", "note"),
)
PLACE = ("source", "table", "model", "backbone", "method", "method_params", "dataset")
SETTING = ("source", "table", "method", "method_params")
PRINTED_MEAN = "source.mean"  # of a setting over all data sets, as the document prints it

# The words of the documents -> ours. What is not here keeps its own.
METHODS = {"adapter_sequential": "adapter", "baseline": "frozen"}
OPTIONS = {"I": "repeats", "r": "rank"}
DATA_SETS = {family.family: word for word, family in DATA.items() if family.family} | {
    "COCO val": "coco",
    "COCO": "coco",
    "ADE20K val": "ade20k",
}
METRICS = {
    "AP": "segm_AP",
    **{f"{kind}_mAP{end}": f"{kind}_AP{end}" for kind in ("bbox", "segm") for end in ("", 50, 75)},
    "trainable_params": "params.trainable",
    "updated_params_incl_neck_head": "params.trainable",
    "trainable_pct_eq10": "params.percent",
    "trainable_ratio": "params.percent",
    "inference_time": "bench.median_ms",
    "gpu_memory": "memory.peak_cuda_mib",
    "training_time": "seconds.train",
    **{name: f"{name}_fg" for name in ("mIoU", "mAcc", "aAcc")},
    # as the published code of Conv-LoRA computes them: means over images, E over its thresholds
    "S_alpha": "S",
    "E_phi": "E_mean",
    "F_beta_w": "F_weighted",
    "BER": "BER_image",
    "Jaccard": "IoU_image",
    "IoU": "IoU_image",
    "Dice": "Dice_image",
}
LOWER = {"BER_image"}  # of the published metrics; all others are better the higher
TRANSPARENT = "transparent objects, 12 classes (dataset not named on the poster)"


def path_of(results: Path) -> Path:
    """Return where the published numbers are: below the results, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    places = (results, package, package.parent / "results")
    return next((p / FILE for p in places if (p / FILE).is_file()), results / FILE)


def read(results: Path) -> list[Values]:
    """Read all published numbers, in the order of the file.

    Raises UserError for a file that is missing or broken, naming file and line.
    """
    path = path_of(results)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: published numbers cannot be read ({error})") from error
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"{path}: without the columns {', '.join(missing)}")
    found: dict[tuple[str, ...], Values] = {}
    means: dict[tuple[str, ...], str] = {}
    for line, row in enumerate(rows, start=2):
        if not row["method"]:
            continue  # facts about data sets
        if row["metric"] == "AP_mean":
            means[tuple(row[key] for key in SETTING)] = row["value"]
            continue
        place = tuple(row[key] for key in PLACE)
        try:
            run = found.get(place) or found.setdefault(place, _run(row, line))
            run |= _number(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: line {line}: {error}") from error
        run["source.lines"] += f" {line}"
        notes = [run["source.note"], row["note"]]
        run["source.note"] = "; ".join(dict.fromkeys(note for note in notes if note))
    for place, run in found.items():
        if mean := means.get(tuple(place[PLACE.index(key)] for key in SETTING)):
            run[PRINTED_MEAN] = float(mean)
    return list(found.values())


def _run(row: dict[str, str], line: int) -> Values:
    """Return a setting on a data set, without its numbers."""
    words = {place: word for word, place in MODELS.items()}
    place = (row["model"], row["backbone"])
    model = words.get(place) or " ".join(part for part in place if part)
    data = DATA_SETS.get(row["dataset"], "trans10k" if row["dataset"] == TRANSPARENT else "")
    options = {OPTIONS.get(k, k): v for k, v in json.loads(row["method_params"] or "{}").items()}
    return {
        "origin": "reported",
        "id": f"reported:{line}",
        "status": "done",
        "model": model,
        "architecture": row["model"],
        "backbone": row["backbone"],
        "data_set": DATA[data].family or data if data else row["dataset"],
        "source.document": row["source"],
        "source.table": row["table"],
        "source.lines": "",
        "source.note": "",
        "config.model.name": model,
        "config.peft.name": METHODS.get(row["method"], row["method"]),
        "config.data.name": data or row["dataset"],
        **{f"config.peft.{key}": value for key, value in options.items()},
        **_number(row | {"metric": "params.trainable", "value": row["params_m"]}),
        **_number(row | {"metric": "params.percent", "value": row["params_pct"]}),
    }


def _number(row: dict[str, str]) -> Values:
    """Return the number of a line under the key that a record of ours has for it."""
    metric = METRICS.get(row["metric"], row["metric"])
    if not row["value"]:
        return {}
    value = float(row["value"])
    if metric in QUANTITIES:
        return {metric: round(value / QUANTITIES[metric].factor, 3)}
    key = f"metrics.{metric}"
    return {
        f"{key}.value": value,
        f"{key}.unit": row["unit"],
        f"{key}.direction": "lower" if metric in LOWER else "higher",
        f"{key}.protocol": _protocol(row["dataset"], metric),
        **({f"{key}.sd": float(row["std"])} if row["std"] else {}),
    }


def _protocol(data_set: str, metric: str) -> str:
    """Return by which rules a precision was computed; the studies say so of no other metric."""
    if not metric.startswith(("segm_AP", "bbox_AP")):
        return ""
    return "Cityscapes" if data_set == "Cityscapes" else "COCO"

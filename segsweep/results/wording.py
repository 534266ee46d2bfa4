"""What things are called in tables: words as they declare it, metrics, quantities, documents.

No word of ours stands here. The yaml of a word says its `label`, its class the options that labels
always show (`shown`) and how values are written (`spelling`); `reported/names.csv` says what the
studies call theirs, and in which order their tables have them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from segsweep.base.package import packaged
from segsweep.base.words import files

if TYPE_CHECKING:
    from segsweep.metrics.base import Metric

Values = dict[str, Any]
"""One run: {"id": ..., "config.peft.rank": 4, "metrics.segm_AP.value": 41.2, ...}."""

MILLION = 1e6
LONG = 72  # letters of a heading
COLUMN, ROW = 40, 56  # letters of a label in a table
NAMED = 5  # of many things, how many are named


class PublishedName(NamedTuple):
    """What a word of the studies is called here: our word and, where it has none, its label."""

    word: str
    label: str


@cache
def published(kind: str) -> dict[str, PublishedName]:
    """Return the printed words of a kind (peft, data, metric, ...), in the studies' order."""
    return {printed: PublishedName(*name) for of, printed, *name in _names() if of == kind}


@cache
def _names() -> list[list[str]]:
    """Read the lines "kind,printed,word,label"."""
    with (packaged("results/reported") / "names.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@cache
def published_place(method: str) -> int:
    """Return the place of a method in the studies' tables; what they lack follows."""
    words = list(dict.fromkeys(name.word for name in published("peft").values()))
    return words.index(method) if method in words else len(words)


@cache
def declared(group: str, word: str) -> dict[str, Any]:
    """Return what the yaml of an installed word says, nothing for other words."""
    path = files(group).get(word)
    if path is None:
        return {}
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_bytes(), loader) or {}


@cache
def class_of(group: str, word: str) -> type | None:
    """Return the class of an installed word; torch is not imported."""
    from segsweep.base import config

    return config.class_of(group, word) if declared(group, word) else None


@cache
def label_of(group: str, word: str) -> str:
    """Return the label of a word of a config group; nothing if it has no name but its word."""
    printed = (name.label for name in published(group).values() if name.word == word)
    return declared(group, word).get("label") or next(filter(None, printed), "")


def naming_options(label: str) -> list[str]:
    """Return the options of which the first given one names a word: those of "{root|train}"."""
    return label[1:-1].split("|") if label.startswith("{") and label.endswith("}") else []


@cache
def forms(group: str, word: str) -> dict[str, str]:
    """Return how options of a word stand in labels: {"rank": "r={}"}.

    Of a word that is not installed its options are written as other words of the group do.
    """
    from segsweep.base.config import words

    installed = class_of(group, word)
    classes = [installed] if installed else words(group).values()
    return {key: form for cls in classes for key, form in getattr(cls, "shown", {}).items()}


def spelling(group: str, word: str) -> dict[str, str]:
    """Return how values of a word's options are written: {"kappa": "κ"}."""
    return getattr(class_of(group, word), "spelling", {})


@cache
def axis_name(method: str, symbol: str) -> str:
    """Return what an axis calls an option by its symbol in labels: "rank r" for "r"."""
    named = {form.removesuffix("={}"): key for key, form in forms("peft", method).items()}
    axes = getattr(class_of("peft", method), "axes", {})
    return axes.get(symbol) or (f"{named[symbol]} {symbol}" if symbol in named else symbol)


KEY_METRIC = "segm_AP"
RECORDED_FORMS = {"config.bench.form": "{}"}  # how options of no word stand in labels


@dataclass(frozen=True)
class Quantity:
    """A recorded number that is no metric: its name, its unit, and the factor to that unit."""

    name: str
    unit: str
    factor: float = 1.0
    direction: str = ""  # none: not a contest

    @property
    def heading(self) -> str:
        """The heading of its column."""
        return f"{self.name} ({self.unit})"


QUANTITIES = {
    "params.trainable": Quantity("Trained", "M", 1 / MILLION),
    "params.percent": Quantity("Trained", "%"),
    "bench.median_ms": Quantity("Latency", "ms"),
    "bench.iqr_ms": Quantity("IQR", "ms"),
    "bench.ratio.median": Quantity("To base", "×"),
    "bench.ratio.low": Quantity("95 % from", "×"),
    "bench.ratio.high": Quantity("to", "×"),
    "bench.cpu_ratio.median": Quantity("CPU time to base", "×"),
    "bench.flops": Quantity("Operations", "GFLOP", 1e-9),
    "bench.peak_mib": Quantity("Peak", "MiB"),
    "bench.checkpoint_bytes": Quantity("Checkpoint", "MB", 1 / MILLION),
    "bench.images_per_s.1": Quantity("Inference", "images/s", direction="higher"),
    "bench.train.median_ms": Quantity("Training step", "s", 1e-3, "lower"),
    "bench.train.peak_mib": Quantity("Memory", "GB", 1 / 1024, "lower"),
    "bench.train.total_s": Quantity("Training", "h", 1 / 3600, "lower"),
    "seconds.train": Quantity("Training", "h", 1 / 3600, "lower"),
    "memory.peak_cuda_mib": Quantity("GPU memory", "GB", 1 / 1024, "lower"),
    "delta.bytes": Quantity("Checkpoint", "MB", 1 / MILLION, "lower"),
}


@cache
def quantity_of(metric: str) -> str:
    """Return what a metric measures, by the installed class that has it: "mask AP"; else itself."""
    kinds = (cast("type[Metric] | None", class_of("metrics", word)) for word in files("metrics"))
    return next((kind.quantity(metric) for kind in kinds if kind and metric in kind.values), metric)


def recorded_name(run: Values, metric: str) -> str:
    """Return a run's name of a metric that is asked for by name or by what it measures, else ""."""
    if f"metrics.{metric}.value" in run:
        return metric
    entries = (key for key, value in run.items() if value == metric and key.endswith(".quantity"))
    return next((key.removeprefix("metrics.").removesuffix(".quantity") for key in entries), "")


def key_metric(run: Values) -> str:
    """Return the metric that decides about a run; the first records did not say it."""
    return run.get("config.metrics.key") or KEY_METRIC


def metric_name(metric: str) -> str:
    """Return the heading of a metric's column; masks go without saying."""
    quantity = QUANTITIES.get(metric)
    return quantity.heading if quantity else quantity_of(metric).removeprefix("mask ")


def protocol_in_words(metric: str, protocol: str) -> str:
    """Return "COCO mask AP": the metric with the rules that it is computed by, if they are known.

    Of COCO's average precision the number of detections that count is part of the protocol.
    """
    rules, limited, most = protocol.partition(" maxDets ")
    dets = f", maxDets {most if limited else 100}" if rules == "COCO" else ""
    return f"{rules} {quantity_of(metric)}{dets}".strip()


def first(words: Iterable[str]) -> str:
    """Return the first words, and how many more there are."""
    names = list(words)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def elided(text: str, most: int = LONG) -> str:
    """Return a text in at most so many letters; of long ones the middle goes, "Mask DINO … 64)"."""
    if len(text) <= most:
        return text
    front = most * 2 // 3
    return f"{text[:front].rstrip()} … {text[len(text) - (most - front - 3) :].lstrip()}"


def document(source: str, table: str) -> str:
    """Return "VFM-Adapter (002), table 1": where a published number stands."""
    known = published("source").get(source)
    return f"{known.label if known else source} ({source}), table {table}"


def table_of(run: Values) -> str:
    """Return "000 2a": the published table that a published number stands in."""
    return f"{run['source.document']} {run['source.table']}"


def natural(text: str, short_first: bool = False) -> list[tuple[int, float, str]]:
    """Return a sort key: numbers as numbers; on request shorter words first (κ, λ before κ+λ)."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    length = len if short_first else lambda _: 1
    return [(0, float(p), "") if p[0].isdigit() else (length(p), 0.0, p) for p in parts]

"""From records of runs to the candidates on each data set: what each setting gives and costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean
from typing import Any, NamedTuple

from segsweep.results.ceilings import ceilings
from segsweep.results.cells import mean
from segsweep.results.settings import LabelledRun, Values, arrange, order
from segsweep.results.wording import key_metric, metric_name

LATENCY, SIZE = "latency", "size"
MB, BYTES = 1e6, 4  # of a parameter, where no checkpoint tells
SIZES = {"all": "recall", "s": "recall small", "m": "recall medium", "l": "recall large"}

ERRORS = ("missed", "background", "classification", "localisation", "duplicate")
"""Of the types of analysis.matches those that a table of the report shows."""

SPREAD = ("mean", "lower quarter", "lowest")
"""Of the IoU of images, what such a table shows."""

Record = dict[str, Any]


class OperatingPoint(NamedTuple):
    """What a score threshold means: objects missed and false alarms, each per 1,000 objects."""

    score: float
    missed: float
    false: float


@dataclass(frozen=True)
class Candidate:
    """One setting; `by_seed` holds the metric of each seed, `outcomes` its operating points."""

    name: str
    reference: bool  # the full head, which PEFT is compared with
    by_seed: dict[int, float]
    trained: float  # parameters
    size: float  # MB that are stored per task
    latency: float | None = None  # ms an image
    measures: dict[str, float] = field(default_factory=dict)
    outcomes: list[list[OperatingPoint]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)  # names of their folders
    boxes: bool = False  # its objects were matched by boxes: it finds no masks

    @property
    def values(self) -> list[float]:
        """The metric of each seed."""
        return [*self.by_seed.values()]

    def measured(self) -> dict[str, float | None]:
        """Return everything that a limit can be put on; None where nothing measured it."""
        return {**self.measures, LATENCY: self.latency, SIZE: self.size}

    def burden(self) -> tuple[float, float, float]:
        """Return what is to be as small as possible: size, then training, then latency."""
        return self.size, self.trained, inf if self.latency is None else self.latency


@dataclass(frozen=True)
class Contest:
    """The settings that were tried on a data set with a model; their names differ.

    `missing` is the number of settings that were asked for, too, and of which no run is done;
    `ceiling` what the annotations themselves would score, "" where that is everything.
    """

    name: str
    metric: str
    unit: str
    higher: bool
    candidates: list[Candidate]
    model: str = ""
    missing: int = 0
    ceiling: str = ""

    def measures(self) -> list[str]:
        """Return everything that a limit can be put on, beside latency and size."""
        return list(dict.fromkeys(name for c in self.candidates for name in c.measures))

    def tried(self) -> list[Candidate]:
        """Return the candidates that have a value."""
        return [c for c in self.candidates if c.values]

    def gains(self, candidate: Candidate) -> list[float]:
        """Return the values of a candidate as what is to be as high as possible."""
        return [value if self.higher else -value for value in candidate.values]


def contests(
    runs: list[Values], records: dict[str, Record], asked: Mapping[str, Sequence[str]] | None = None
) -> list[Contest]:
    """Return the contests of finished runs: one for each data set, model and metric.

    As in tables, models are not compared: each has a noise and a family of comparisons of its own.

    `records` are the whole records by id, `asked` the words of all runs that were asked for.
    """
    groups: dict[tuple[str, str, str, str], list[LabelledRun]] = {}
    for run in arrange([run for run in runs if run["status"] == "done"]):
        key = key_metric(run.values)
        protocol = run.values.get(f"metrics.{key}.protocol") or ""
        groups.setdefault((run.data_set, run.model, key, protocol), []).append(run)
    models = {(data_set, model) for data_set, model, _, _ in groups}
    titles = []
    for data_set, model, key, protocol in sorted(groups):
        several = sum(place == data_set for place, _ in models) > 1
        measured = sum((d, m) == (data_set, model) for d, m, _, _ in groups) > 1
        titles.append(
            ", ".join([data_set, *([model] * several), *([f"{protocol} {key}".strip()] * measured)])
        )
    return [
        _contest(title, place[2], groups[place], records, asked or {})
        for title, place in zip(titles, sorted(groups), strict=True)
    ]


def _contest(
    title: str,
    key: str,
    runs: list[LabelledRun],
    records: dict[str, Record],
    asked: Mapping[str, Sequence[str]],
) -> Contest:
    settings: dict[str, list[LabelledRun]] = {}
    for run in sorted(runs, key=order):
        settings.setdefault(run.setting, []).append(run)
    candidates = [_candidate(name, key, group, records) for name, group in settings.items()]
    values = runs[0].values
    higher = values.get(f"metrics.{key}.direction", "higher") != "lower"
    unit = values.get(f"metrics.{key}.unit") or ""
    missing = _missing([name for c in candidates for name in c.runs], asked)
    limit = ceilings((run.values for run in runs), key)
    name, model = metric_name(key), runs[0].model
    return Contest(title, name, unit, higher, candidates, model, missing, limit)


def _missing(done: Sequence[str], asked: Mapping[str, Sequence[str]]) -> int:
    """Return of how many settings that were asked for on the same place none is done."""
    ended = [_split(asked[name]) for name in done if name in asked]
    places, settings = {place for place, _ in ended}, {setting for _, setting in ended}
    wanted = {setting for place, setting in map(_split, asked.values()) if place in places}
    return len(wanted - settings)


def _split(words: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words of a run that say its data and model, and those that say its setting."""
    place = frozenset(word for word in words if re.match(r"\+*(data|model)[=./]", word))
    return place, frozenset(w for w in words if not re.match(r"\+*(seed|repeat)=", w)) - place


def _candidate(
    name: str, key: str, runs: list[LabelledRun], records: dict[str, Record]
) -> Candidate:
    values = [run.values for run in runs]
    trained = fmean(run.get("params.trainable") or 0 for run in values)
    stored = mean(run.get("delta.bytes") for run in values)
    details = [records.get(run["id"], {}) for run in values]
    # the repeats of a seed are no further evidence
    by_seed = [(run.get("config.seed", 0), run.get(f"metrics.{key}.value")) for run in values]
    return Candidate(
        name=name,
        reference=runs[0].reference,
        by_seed=_means(by_seed),
        trained=trained,
        size=(BYTES * trained if stored is None else stored) / MB,
        latency=mean(run.get("bench.median_ms") for run in values),
        measures=_means(item for record in details for item in measures(record, key).items()),
        outcomes=[points for record in details if (points := outcomes(record.get("analysis")))],
        runs=[str(run.get("name") or run["id"]) for run in values],
        boxes=any((r.get("analysis") or {}).get("matched") == "boxes" for r in details),
    )


def measures(record: Record, key: str) -> dict[str, float]:
    """Return everything about a run that a limit can be put on, by name."""
    values = {name: metric["value"] for name, metric in (record.get("metrics") or {}).items()}
    analysis = record.get("analysis") or {}
    if "recall" in analysis:
        values |= {SIZES[size]: recall["recall"] for size, recall in analysis["recall"].items()}
        values["precision"] = (analysis["best"] or {}).get("precision")
        right = analysis["best"] is not None  # low scores alone would look perfect
        values["calibration error"] = analysis["calibration"]["ECE"] if right else None
        errors = analysis["errors"] or {}
        values |= {f"dAP {name}": errors[name]["dAP"] for name in ERRORS if name in errors}
    elif analysis:
        values |= {f"image IoU {name}": analysis["image_iou"].get(name) for name in SPREAD}
        values |= {f"IoU of {name}": part["IoU"] for name, part in analysis["regions"].items()}
    for column, by_value in analysis.get("slices", {}).items():
        for value, numbers in by_value.items():
            values[f"{column}={value}"] = numbers.get(key)
            values[f"{column}={value} recall"] = numbers.get("recall")
    return {name: float(value) for name, value in values.items() if value is not None}


def _means(values: Iterable[tuple[Any, float | None]]) -> dict[Any, float]:
    """Return the means of the values that share a key."""
    by_key: dict[Any, list[float]] = {}
    for key, value in values:
        if value is not None:
            by_key.setdefault(key, []).append(float(value))
    return {key: fmean(group) for key, group in by_key.items()}


def outcomes(analysis: dict[str, Any] | None) -> list[OperatingPoint]:
    """Return the operating points that an analysis tells of: the best F1, and every bin's edge.

    What is right above an edge follows from the bins of the calibration: their numbers of
    predictions and shares of right ones. Each right prediction has found one object.
    """
    objects = analysis["recall"]["all"]["objects"] if analysis and "recall" in analysis else 0
    if not analysis or not objects:
        return []
    points, best = [], analysis["best"]
    if best and best["precision"]:
        right = best["recall"] / 100 * objects
        points.append(_point(best["score"], right, right * (100 / best["precision"] - 1), objects))
    right = wrong = 0.0
    bins = analysis["calibration"]["bins"]
    for k in reversed(range(len(bins))):
        number, _, share = bins[k]
        hits = round(number * (share or 0.0) / 100)
        right, wrong = right + hits, wrong + number - hits
        points.append(_point(k / len(bins), right, wrong, objects))
    return points


def _point(score: float, right: float, wrong: float, objects: int) -> OperatingPoint:
    missed = 1000 * max(0.0, objects - right) / objects
    return OperatingPoint(round(score, 3), round(missed, 3), round(1000 * wrong / objects, 3))


def timed(runs: Sequence[Values], bench: Sequence[Values]) -> list[Values]:
    """Return runs with the median time of an image, in ms, where `bench` measured their setting.

    Methods that can be merged count merged, as they are deployed; of several measurements the
    last counts.
    """
    last = sorted(bench, key=lambda measured: str(measured.get("ended")))
    merged = (measured for measured in last if measured.get("config.bench.form") != "unmerged")
    key = "bench.median_ms"
    times = {_kind(m): {key: m[key]} for m in merged if m.get(key) is not None}
    return [run | times.get(_kind(run), {}) for run in runs]


def _kind(run: Values) -> frozenset[tuple[str, Any]]:
    """Return what a time depends on: the model without its weights, the method without its rate."""
    return frozenset(
        (key, value)
        for key, value in run.items()
        if key.startswith(("config.model.", "config.peft.", "config.data.name"))
        and key not in ("config.model.weights", "config.peft.lr", "config.peft.reference")
        and not key.endswith(".label")
    )

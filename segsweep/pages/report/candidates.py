"""From records of runs to the candidates of each task: what each setting gives and costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from segsweep.pages.report.decision import Candidate, Point, Task
from segsweep.results.settings import LabelledRun, Values, arrange, order
from segsweep.results.wording import metric_name

MB, BYTES = 1e6, 4  # of a parameter, where no checkpoint tells
SIZES = {"all": "recall", "s": "recall small", "m": "recall medium", "l": "recall large"}

ERRORS = ("missed", "background", "classification", "localisation", "duplicate")
"""Of the types of analysis.matches those that a table of the report shows."""

Record = dict[str, Any]


def tasks(runs: list[Values], records: dict[str, Record]) -> list[Task]:
    """Return the tasks of finished runs: a data set each, or several where they differ in metric.

    `records` are the whole records by id.
    """
    groups: dict[tuple[str, str, str], list[LabelledRun]] = {}
    for run in arrange([run for run in runs if run["status"] == "done"]):
        key = run.values.get("config.metrics.key") or "segm_AP"
        protocol = run.values.get(f"metrics.{key}.protocol") or ""
        groups.setdefault((run.data_set, key, protocol), []).append(run)
    names = [data_set for data_set, _, _ in groups]
    found = []
    for (data_set, key, protocol), own in sorted(groups.items()):
        several = names.count(data_set) > 1
        title = f"{data_set}, {protocol} {key}" if several else data_set
        found.append(_task(title, key, own, records))
    return found


def _task(title: str, key: str, runs: list[LabelledRun], records: dict[str, Record]) -> Task:
    settings: dict[tuple[str, str], list[LabelledRun]] = {}
    for run in sorted(runs, key=lambda run: (run.model, order(run))):
        settings.setdefault((run.model, run.setting), []).append(run)
    models = {model for model, _ in settings}
    candidates = []
    for (model, setting), own in settings.items():
        name = setting if len(models) == 1 else f"{setting}, {model}"
        candidates.append(_candidate(name, key, own, records))
    metric = runs[0].values
    higher = metric.get(f"metrics.{key}.direction", "higher") != "lower"
    return Task(
        title, metric_name(key), metric.get(f"metrics.{key}.unit") or "", higher, candidates
    )


def _candidate(
    name: str, key: str, runs: list[LabelledRun], records: dict[str, Record]
) -> Candidate:
    trained = fmean(run.values.get("params.trainable") or 0 for run in runs)
    stored = [size for run in runs if (size := run.values.get("delta.bytes")) is not None]
    own = [records.get(run.values["id"], {}) for run in runs]
    times = [time for run in runs if (time := run.values.get("bench.median_ms")) is not None]
    return Candidate(
        name=name,
        model=runs[0].model,
        method=runs[0].method,
        values=_by_seed(runs, key),
        trained=trained,
        size=(fmean(stored) if stored else BYTES * trained) / MB,
        latency=fmean(times) if times else None,
        measures=_means(measures(record, key) for record in own),
        outcomes=[points for record in own if (points := outcomes(record.get("analysis")))],
    )


def _by_seed(runs: list[LabelledRun], key: str) -> list[float]:
    """Return a value for each seed, the mean of its repeats: they are no further evidence."""
    seeds: dict[int, list[float]] = {}
    for run in runs:
        if (value := run.values.get(f"metrics.{key}.value")) is not None:
            seeds.setdefault(run.values.get("config.seed", 0), []).append(float(value))
    return [fmean(values) for values in seeds.values()]


def measures(record: Record, key: str) -> dict[str, float]:
    """Return everything about a run that a limit can be put on, by name."""
    found = {name: metric["value"] for name, metric in (record.get("metrics") or {}).items()}
    analysis = record.get("analysis")
    if analysis:
        found |= {SIZES[size]: one["recall"] for size, one in analysis["recall"].items()}
        found["precision"] = (analysis["best"] or {}).get("precision")
        found["calibration error"] = analysis["calibration"]["ECE"]
        errors = analysis["errors"] or {}
        found |= {f"dAP {name}": errors[name]["dAP"] for name in ERRORS if name in errors}
        for column, by_value in analysis["slices"].items():
            for value, one in by_value.items():
                found[f"{column}={value}"] = one.get(key)
                found[f"{column}={value} recall"] = one["recall"]
    return {name: float(value) for name, value in found.items() if value is not None}


def _means(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over the runs that have it."""
    every: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.items():
            every.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in every.items()}


def outcomes(analysis: dict[str, Any] | None) -> list[Point]:
    """Return the operating points that an analysis tells of: the best F1, and every bin's edge.

    What is right above an edge follows from the bins of the calibration: their numbers of
    predictions and shares of right ones. Each right prediction has found one object.
    """
    objects = analysis["recall"]["all"]["objects"] if analysis else 0
    if not analysis or not objects:
        return []
    found, best = [], analysis["best"]
    if best and best["precision"]:
        right = best["recall"] / 100 * objects
        found.append(_point(best["score"], right, right * (100 / best["precision"] - 1), objects))
    right = wrong = 0.0
    bins = analysis["calibration"]["bins"]
    for k in reversed(range(len(bins))):
        number, _, share = bins[k]
        hits = round(number * (share or 0.0) / 100)
        right, wrong = right + hits, wrong + number - hits
        found.append(_point(k / len(bins), right, wrong, objects))
    return found


def _point(score: float, right: float, wrong: float, objects: int) -> Point:
    missed, false = max(0.0, objects - right), wrong
    return Point(*(round(v, 3) for v in (score, 1000 * missed / objects, 1000 * false / objects)))


def timed(runs: Sequence[Values], bench: Sequence[Values]) -> list[Values]:
    """Return runs with the median time of an image, in ms, where `bench` measured their setting.

    Methods that can be merged count merged, as they are deployed; of several measurements the
    last counts.
    """
    last = sorted(bench, key=lambda one: str(one.get("ended")))
    merged = (one for one in last if one.get("config.bench.form") != "unmerged")
    times = {_kind(one): one["bench.median_ms"] for one in merged if "bench.median_ms" in one}
    found = ((run, times.get(_kind(run))) for run in runs)
    return [run if time is None else run | {"bench.median_ms": time} for run, time in found]


def _kind(run: Values) -> frozenset[tuple[str, Any]]:
    """Return what a time depends on: the model without its weights, the method without its rate."""
    return frozenset(
        (key, value)
        for key, value in run.items()
        if key.startswith(("config.model.", "config.peft.", "config.data.name"))
        and key not in ("config.model.weights", "config.peft.lr", "config.peft.reference")
        and not key.endswith(".label")
    )

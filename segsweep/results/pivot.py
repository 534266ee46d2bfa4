"""From the frame to places in a table: which numbers qualify, and the row and column of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segsweep.results.cells import Key
from segsweep.results.settings import LabelledRun, arrange, order
from segsweep.results.spec import KEY, Spec
from segsweep.results.wording import (
    QUANTITIES,
    Values,
    key_metric,
    metric_name,
    natural,
    published_place,
    table_of,
)

ORIGINS = ("reported", "ours")
BENCH = "bench."  # what metrics of the verb `bench` begin with
PLACES = ("data_set", "model", "architecture", "backbone")  # what a run is about


@dataclass(frozen=True)
class Observation:
    """One number of one run and where it belongs; `value` is None in a run without it."""

    run: LabelledRun
    metric: str
    protocol: str
    value: float | None
    title: Key
    row: Key
    column: Key


def column_fields(spec: Spec) -> list[str]:
    """Return the fields of the headings, top-down; the metric first if it stands nowhere else."""
    named = "metric" in [*spec.rows, *spec.columns, *spec.split]
    return spec.columns if named else ["metric", *spec.columns]


def row_fields(spec: Spec, origins: Sequence[str]) -> list[str]:
    """Return the fields of the rows; ours and published numbers stand in rows of their own."""
    both = len(origins) > 1 and bool(spec.reported)
    return [*spec.rows, "origin"] if both and "origin" not in spec.rows else spec.rows


def qualifying(spec: Spec, runs: list[Values]) -> list[Values]:
    """Return the numbers of the published table, then the runs of ours that fit its columns."""
    published = (run for run in runs if run["origin"] == "reported")
    printed = [run for run in published if table_of(run) == spec.reported]
    timed = any(metric.startswith(BENCH) for metric in spec.metrics)  # a table of benchmarks
    ours = [r for r in runs if r["origin"] == "ours" and timed == (r.get("kind") == "bench")]
    if spec.reported:
        fields = [name for name in [*spec.columns, *spec.split] if name in PLACES]
        places = {tuple(map(run.get, fields)) for run in printed}
        ours = [run for run in ours if tuple(map(run.get, fields)) in places]
    return [*printed, *(run for run in ours if _fits(run, spec.where))]


def observations(spec: Spec, runs: list[Values], origins: Sequence[str]) -> list[Observation]:
    """Return every number of the runs with its row and column.

    Values of one name but of several protocols get columns of their own: they are never averaged.
    """
    rows, columns = row_fields(spec, origins), column_fields(spec)
    observed = []
    for run in arrange(runs):
        for metric, value in _numbers(run, spec):
            keys = [
                tuple(_label(run, metric, name, spec) for name in fields)
                for fields in (spec.split, rows, columns)
            ]
            protocol = run.values.get(f"metrics.{metric}.protocol") or ""
            observed.append(Observation(run, metric, protocol, value, *keys))
    if spec.reported:
        printed = {(o.title, o.column) for o in observed if o.run.values["origin"] == "reported"}
        observed = [o for o in observed if (o.title, o.column) in printed]
    return _distinct(_apart(observed, columns), rows)


def sorted_keys(
    spec: Spec, fields: Sequence[str], keyed: Iterable[tuple[Key, Observation]]
) -> list[Key]:
    """Return rows or columns: in the order printed, then by method, data set, metric, number."""
    examples: dict[Key, Observation] = {}
    printed: dict[Key, int] = {}  # the beginnings of published keys
    for key, observation in keyed:
        examples.setdefault(key, observation)
        if observation.run.values["origin"] == "reported":
            for i in range(len(key)):
                printed.setdefault(key[: i + 1], len(printed))

    def rank(key: Key) -> list[tuple]:
        return [
            (printed.get(key[: i + 1], len(printed)), *_order(spec, name, key[i], examples[key]))
            for i, name in enumerate(fields)
        ]

    return sorted(examples, key=rank)


def _order(spec: Spec, name: str, label: str, observation: Observation) -> tuple:
    """Return the sort key of a label among those that no document prints."""
    run = observation.run
    if name == "setting":
        return order(run)
    if name == "method":
        return published_place(run.method), natural(label)
    if name == "metric" and observation.metric in spec.metrics:
        return spec.metrics.index(observation.metric), natural(label)
    value = recorded(run.values, name)  # labels may be the table's own
    return 0, natural(label if value is None else str(value))


def _fits(run: Values, where: dict[str, Any]) -> bool:
    wanted = {key: v if isinstance(v, list) else [v] for key, v in where.items()}
    return all(recorded(run, key) in values for key, values in wanted.items())


def recorded(run: Values, key: str) -> Any:
    """Return a value of the frame by its key, with or without `config.` in front."""
    return run[key] if key in run else run.get(f"config.{key}")


def _numbers(run: LabelledRun, spec: Spec) -> list[tuple[str, float | None]]:
    """Return the metrics of a run that the table is about; a failed run lacks the first of them."""
    values = run.values
    wanted = [key_metric(values) if metric == KEY else metric for metric in spec.metrics]
    if values["status"] != "done":
        return [(wanted[0], None)]
    numbers = [(metric, _value(values, metric)) for metric in wanted]
    known = [number for number in numbers if number[1] is not None]
    return known or (numbers[:1] if values["origin"] == "ours" else [])


def _value(values: Values, metric: str) -> float | None:
    """Return a metric, or another recorded number in the unit of its column."""
    quantity = QUANTITIES.get(metric)
    value = values.get(metric if quantity else f"metrics.{metric}.value")
    return None if value is None else float(value) * (quantity.factor if quantity else 1.0)


def _label(run: LabelledRun, metric: str, name: str, spec: Spec) -> str:
    """Return what a number's field is called in a table."""
    if name == "metric":
        text = metric_name(metric)
        return spec.labels.get(metric, spec.labels.get(text, text))
    if name == "head":
        return next((head for head, sets in spec.heads.items() if run.data_set in sets), "")
    if name in ("setting", "method"):
        text = run.setting if name == "setting" else run.family
    else:
        value = recorded(run.values, name)
        text = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    return spec.labels.get(text, text)


def _distinct(observed: list[Observation], fields: Sequence[str]) -> list[Observation]:
    """Tell runs apart that would share a cell though they differ in more than seed and data set.

    The label of their row then names setting and model, as far as these differ.
    """
    inside: dict[tuple, set[tuple[str, str]]] = defaultdict(set)
    for o in observed:
        inside[o.title, o.row, o.column, o.run.data_set].add((o.run.setting, o.run.model))
    mixed: dict[tuple[Key, Key], list[bool]] = defaultdict(lambda: [False, False])
    for (title, row, *_), pairs in inside.items():
        for i, names in enumerate(zip(*pairs, strict=True)):
            mixed[title, row][i] |= len({*names}) > 1
    at = max(i for i, name in enumerate(fields) if name != "origin")

    def labels(o: Observation) -> Key:
        settings, models = mixed[o.title, o.row]
        label = o.run.setting if settings else o.row[at]
        label += f", {o.run.model}" if models else ""
        return (*o.row[:at], label, *o.row[at + 1 :])

    if not any(any(differ) for differ in mixed.values()):
        return observed
    return [replace(o, row=labels(o)) for o in observed]


def _apart(observed: list[Observation], fields: Sequence[str]) -> list[Observation]:
    """Name the protocol in the heading of columns that would otherwise mix several."""
    protocols: dict[Key, set[str]] = defaultdict(set)
    for o in observed:
        if o.protocol and o.value is not None:
            protocols[o.column].add(o.protocol)
    if all(len(several) < 2 for several in protocols.values()):
        return observed
    at = fields.index("metric") if "metric" in fields else 0

    def labels(o: Observation) -> Key:
        if len(protocols[o.column]) < 2 or not o.protocol:
            return o.column
        return (*o.column[:at], f"{o.column[at]} ({o.protocol})", *o.column[at + 1 :])

    return [replace(o, column=labels(o)) for o in observed]

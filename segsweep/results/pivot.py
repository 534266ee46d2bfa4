"""From the frame to places in a table: which numbers qualify, and the row and column of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segsweep.results.cells import Key
from segsweep.results.settings import LabelledRun, arrange, order
from segsweep.results.spec import KEY, Spec
from segsweep.results.sweeps import asked_by
from segsweep.results.wording import (
    QUANTITIES,
    Values,
    key_metric,
    metric_name,
    natural,
    published,
    published_place,
    quantity_of,
    recorded_name,
    table_of,
)

ORIGINS = ("reported", "ours")
BENCH = "bench."  # what metrics of the verb `bench` begin with; only its records have them


@dataclass(frozen=True)
class Observation:
    """One number of one run and where it belongs; `value` is None in a run without it.

    `metric` is what the table asks for, `name` what the run calls it.
    """

    run: LabelledRun
    metric: str
    name: str
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
    """Return the numbers of the published table, then the runs of ours that belong to it.

    These have its data, its models and its methods.
    """
    published = (run for run in runs if run["origin"] == "reported")
    printed = [run for run in published if table_of(run) == spec.reported]
    benched = {metric.startswith(BENCH) for metric in spec.metrics}  # a table may ask for both
    ours = [r for r in runs if r["origin"] == "ours" and _benched(r) in benched]
    if spec.reported:
        places = _places(printed, runs)
        sets = {data for data, _, _ in places}
        named = [run for run in ours if run["config.data.name"] in sets]
        known = {run.get("data.fingerprint"): run["config.data.name"] for run in named}
        ours = [run for run in ours if not places.isdisjoint(_readings(run, known, sets))]
    ours = [run for run in ours if _fits(run, spec.where)]
    ours = asked_by(spec.sweep, ours) if spec.sweep else ours
    for key in spec.varies:
        ours = _varying(ours, key)
    return [*printed, *ours]


def _benched(run: Values) -> bool:
    """Say whether the verb `bench` made a record: its model was measured, not trained."""
    return run.get("kind") == "bench"


def _varying(runs: list[Values], key: str) -> list[Values]:
    """Return the runs of methods that have several values of a key on a model."""
    values: dict[Key, set[str]] = defaultdict(set)
    for run in runs:
        values[run["model"], run["config.peft.name"]].add(_text(recorded(run, key)))
    return [run for run in runs if len(values[run["model"], run["config.peft.name"]]) > 1]


def _places(printed: list[Values], runs: list[Values]) -> set[Key]:
    """Return data, model and method, by their words, of what a published table has numbers of.

    Numbers that are for no single set hold for every set on which their document has the model.
    """
    known = {name.word for name in published("data").values()}
    sets: dict[Any, set[str]] = defaultdict(set)
    for run in runs:
        if run["origin"] == "reported" and run["config.data.name"] in known:
            sets[run["source.document"], run["model"]].add(run["config.data.name"])
    return {
        (data, run["model"], run["config.peft.name"])
        for run in printed
        for data in {run["config.data.name"]} & known or sets[run["source.document"], run["model"]]
    }


def _readings(run: Values, known: dict[Any, str], sets: set[str]) -> list[Key]:
    """Return data, model and method of a run of ours; its model by word and by architecture.

    Data are what a set's own word declares, here or in a run on the same content (`known`, by
    fingerprint): a folder's name proves nothing. What `bench` measured is of noise, so of each of
    the `sets`.
    """
    word: str = run["config.data.name"]
    content = known.get(run.get("data.fingerprint") or word, word)
    data = sets if _benched(run) else (word, content)
    models = run["config.model.name"], f"{run['architecture']} {run['backbone']}"
    return [(word, model, run["config.peft.name"]) for word in data for model in models]


def observations(spec: Spec, runs: list[Values], origins: Sequence[str]) -> list[Observation]:
    """Return every number of the runs with its row and column.

    Values of one name but of several protocols get columns of their own: they are never averaged.
    """
    rows, columns = row_fields(spec, origins), column_fields(spec)
    observed = []
    for run in arrange(runs):
        for metric, name, value in _numbers(run, spec):
            keys = [
                tuple(_label(run, metric, field, spec) for field in fields)
                for fields in (spec.split, rows, columns)
            ]
            protocol = run.values.get(f"metrics.{name}.protocol") or ""
            observed.append(Observation(run, metric, name, protocol, value, *keys))
    if spec.reported:
        observed = _as_printed(observed)
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


def _numbers(run: LabelledRun, spec: Spec) -> list[tuple[str, str, float | None]]:
    """Return what the table asks for with the run's name for it and its value.

    A failed run lacks the first of them. Beside runs, a benchmark gives what only it measures.
    """
    values = run.values
    asked = [m for m in spec.metrics if m.startswith(BENCH) or not _benched(values)]
    wanted = [_key(values) if metric == KEY else metric for metric in asked]
    if values["status"] != "done":
        return [(wanted[0], "", None)]
    numbers = [(metric, *_value(values, metric)) for metric in wanted]
    known = [number for number in numbers if number[2] is not None]
    return known or (numbers[:1] if values["origin"] == "ours" else [])


def _key(values: Values) -> str:
    """Return what the metric measures that decides about a run."""
    name = key_metric(values)
    return values.get(f"metrics.{name}.quantity") or quantity_of(name)


def _value(values: Values, metric: str) -> tuple[str, float | None]:
    """Return name and value of a metric, or of another recorded number in its column's unit."""
    quantity = QUANTITIES.get(metric)
    name = metric if quantity else recorded_name(values, metric)
    value = values.get(name if quantity else f"metrics.{name}.value")
    return name, None if value is None else float(value) * (quantity.factor if quantity else 1.0)


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
        text = _text(recorded(run.values, name))
    return spec.labels.get(text, text)


def _text(value: Any) -> str:
    """Return a recorded value as a label, "" for none."""
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


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


def _as_printed(observed: list[Observation]) -> list[Observation]:
    """Return what stands in published columns, judged by their protocol where that is known."""
    protocols: dict[tuple[Key, Key], set[str]] = defaultdict(set)
    for o in observed:
        if o.run.values["origin"] == "reported":
            protocols[o.title, o.column].add(o.protocol)

    def fits(o: Observation) -> bool:
        printed = protocols.get((o.title, o.column), set())
        return bool(printed) and (not o.protocol or not printed.isdisjoint({o.protocol, ""}))

    return [o for o in observed if fits(o)]


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

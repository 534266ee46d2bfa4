"""Records of runs as one tidy table: a row per run, a dotted column per recorded value."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segsweep.base.csv_files import csv_table
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import checked, read_bytes
from segsweep.base.terminal import printable
from segsweep.results.settings import locate
from segsweep.results.union import united
from segsweep.results.wording import Values, class_of, first, published
from segsweep.run.folder import DELTA, ELSEWHERE, known_hash
from segsweep.run.shapes import RECORD, record_of

if TYPE_CHECKING:
    import pandas as pd

    from segsweep.metrics.base import Metric
    from segsweep.results.cells import Table

SCHEMA = 1
"""The newest layout of a record that this version reads."""

FILES = ("record.json", "failed.json")
"""What a run leaves when it ends; a finished retry outlives the failure before it."""

UNUSUAL = re.compile(rb"[\x80-\xff]|\\[^nt\"\\/]")
"""Bytes of a record that holds more than plain letters: only these may turn a terminal over."""

LEFT_OUT = {"error.traceback", "files", "optimizer", "classes", "bench.all_ms", "bench.all_cpu_ms"}
LEFT_OUT |= {"bench.train.all_ms"}
"""Long texts and lists, and hashes of files, which stay in the records."""

WHOLE = {
    f"config.{key}"
    for key in ("hparams.lr_factors", "hparams.decays", "data.prompts", "model.backbone.kwargs")
} | {"files"}
"""Dicts whose keys are the user's. Each is one value, since no entries differ from some."""


as_text = json.JSONEncoder(sort_keys=True).encode  # one for all: making it costs more than its use


class Names(dict[str, "tuple[str, Names | None]"]):
    """Of every key below a prefix its dotted name and the names below it, for all records once.

    The name is empty where the frame leaves the key out; nothing is below what is one value.
    """

    def __init__(self, prefix: str = "") -> None:
        """Know nothing yet."""
        self.prefix = prefix

    def __missing__(self, key: str) -> tuple[str, Names | None]:
        """Name a key that no record had before."""
        name = self.prefix + key
        below = None if name in WHOLE else Names(f"{name}.")
        self[key] = named = ("" if name in LEFT_OUT else name, below)
        return named


NAMES = Names()


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Let Python not look for cycles of references meanwhile.

    Records have none, and with 10,000 of them each look, through all of them, takes long.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True)
class Records:
    """All runs that ended, sorted by id, and the unreadable files with the reason for each.

    `bench` are the records of the verb `bench`, of models that were measured, not trained;
    `differing` names the runs that are left out, since their copies say different things;
    `elsewhere` are the records of runs on data that they were not trained on.
    """

    runs: list[Values]
    unreadable: dict[Path, str]
    bench: list[Values] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    elsewhere: list[Values] = field(default_factory=list)

    def annotate(self, tables: list[Table]) -> None:
        """Tell the readers of tables with runs of ours which others are left out."""
        text = f"Left out, of which there are copies that differ: {first(self.differing)}."
        for table in tables if self.differing else ():
            if any(row.origin == "ours" for row in table.rows):
                table.notes.append(text)

    def csv_text(self) -> str:
        """Return the runs as CSV: a line each, a column for every recorded value."""
        shapes = dict.fromkeys(map(tuple, self.runs))  # few: most runs have the same keys
        columns = dict.fromkeys(key for keys in shapes for key in keys)
        return csv_table(self.runs, [*columns])

    def frame(self) -> pd.DataFrame:
        """Return the runs as a data frame, for notebooks and CSV; gaps are None or NaN."""
        import pandas as pd

        return pd.DataFrame(self.runs, dtype=object)  # object: integers stay so beside gaps


@unwatched()
def read(*folders: Path) -> Records:
    """Read `runs/*/record.json` of results folders, or `failed.json` where a run has no record.

    What `bench` measured is that of the first folder: times are those of one machine. May be called
    while a sweep runs: files appear atomically, and runs without either file are left out.
    """
    unreadable: dict[Path, str] = {}
    runs, differing = united(run for f in folders for run in _read(f / "runs", unreadable))
    bench = [run for _, run in _read(folders[0] / "bench", unreadable)]
    judged = {run["id"]: run for f in folders for run in _elsewhere(f, unreadable)}
    others = _located([*judged.values()])
    return Records(_located(runs), unreadable, _located(bench), differing, others)


def _elsewhere(results: Path, unreadable: dict[Path, str]) -> Iterator[Values]:
    """Read what runs reach on other data; what is not about the runs that are here is told."""
    for folder in sorted((results / ELSEWHERE).glob("[!.]*")):
        for directory, judged in _read(folder, unreadable):
            if reason := _outdated(Path(directory), judged):
                unreadable[Path(directory)] = reason
            else:
                yield judged


def _outdated(directory: Path, judged: Values) -> str:
    """Say why a record tells nothing of its run, nothing where it does."""
    run = directory.parent.parent.parent / "runs" / directory.parent.name
    try:
        record = record_of(run)
    except Damaged as damage:
        return str(damage)
    if record is None:
        return f"judges {run.name}, which has not finished here"
    if known_hash(record, DELTA) != judged.get("judges.delta"):
        return f"judges other weights than {run.name} has now; `evaluate` it again"
    return ""


def _located(runs: list[Values]) -> list[Values]:
    return locate(sorted(runs, key=lambda run: run["id"]))


def _read(folder: Path, unreadable: dict[Path, str]) -> Iterator[tuple[str, Values]]:
    """Read the directories of a folder; what cannot be read joins `unreadable`."""
    for path in _deciding(folder):
        try:
            if (text := read_bytes(Path(path))) is None:  # a retry began just now
                continue
            record = _understood(checked(text, RECORD))
            run = flatten(record) | _of_classes(record)
        except ValueError as error:
            unreadable[Path(path)] = str(error)
            continue
        except Damaged as damage:
            unreadable[Path(path)] = str(damage).removeprefix(f"{path}: ")
            continue
        if UNUSUAL.search(text):
            run = {key: printable(v) if isinstance(v, str) else v for key, v in run.items()}
        directory = os.path.dirname(path)
        with contextlib.suppress(OSError):
            run["delta.bytes"] = os.stat(f"{directory}/delta.safetensors").st_size
        yield directory, run


def flatten(record: dict[str, Any]) -> Values:
    """Turn a nested record into {"config.peft.rank": 4, ...}; lists become JSON text."""
    values: Values = {}
    _fill(values, record, NAMES)
    return values


def _fill(values: Values, record: dict[str, Any], names: Names) -> None:
    for key, value in record.items():
        name, below = names[key]
        kind = type(value)
        if kind is dict and below is not None:
            _fill(values, value, below)
        elif name and (key != "label" or value):
            values[name] = as_text(value) if kind is dict or kind is list else value


def _of_classes(record: dict[str, Any]) -> Values:
    """Return what a run reached of single classes, as far as a published table has a column for it.

    Such a column is called "IoU of cup"; of the other classes the record knows.
    """
    values: Values = {}
    for one in record.get("classes") or ():
        for name, value in one.items():
            if (word := f"{name} of {one['class']}") in _printed():
                values |= {f"metrics.{word}.value": value, f"metrics.{word}.unit": "%"}
    return values


@cache
def _printed() -> set[str]:
    return {name.word for name in published("metric").values()}


def _deciding(runs: Path) -> Iterator[str]:
    """Yield the deciding file of each run directory, also one that leads nowhere."""
    if not runs.is_dir():
        return
    for directory in sorted(entry.path for entry in os.scandir(runs) if entry.name[0] != "."):
        for file in FILES:
            path = f"{directory}/{file}"  # a Path for each of many takes longer than reading it
            if os.path.lexists(path):
                yield path
                break


def _understood(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record if this version understands it, else raise ValueError with the reason."""
    if record["schema"] > SCHEMA:
        raise ValueError(f"schema {record['schema']}, this version of segsweep reads {SCHEMA}")
    _complete(record)
    return record


def _complete(record: dict[str, Any]) -> None:
    """Say of metrics what older records did not."""
    metrics, judge = record.get("metrics") or {}, record["config"].get("metrics") or {}
    unsaid = [metric for metric in metrics.values() if "protocol" not in metric]
    if unsaid and (protocol := _protocol(as_text(judge))):
        for metric in unsaid:
            metric["protocol"] = protocol
    for name, metric in metrics.items():
        if "quantity" not in metric:
            metric["quantity"] = _quantity(str(judge.get("name")), name)


@cache
def _quantity(word: str, name: str) -> str:
    """Return what a value of a metric measures; its name where the metric is not installed."""
    kind = cast("type[Metric] | None", class_of("metrics", word))
    return kind.quantity(name) if kind else name


@cache
def _protocol(judge: str) -> str:
    """Return by which rules a metric judges, from its recorded config; nothing if it is unknown.

    The first records did not say it.
    """
    options = json.loads(judge)
    metric = class_of("metrics", str(options.get("name")))
    if metric is None:
        return ""
    names = {f.name for f in fields(metric)} & options.keys() - {"key"}  # which changes no rules
    try:
        return metric(**{name: options[name] for name in names}).protocol()
    except (TypeError, UserError):  # options of another version
        return ""

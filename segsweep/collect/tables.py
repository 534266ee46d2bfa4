"""The ablation table: settings as rows, data sets as columns, one table per model.

    frame --ablation--> [Table] --forms.py--> Markdown, CSV, terminal
                                --delta.py, plots.py--> figure

A `Table` holds numbers only; every form of output is a function of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean, stdev

from segsweep.collect.frame import Values
from segsweep.collect.settings import Run, arrange, order
from segsweep.errors import UserError

MISSING, FAILED = "—", "failed"
AVERAGE = "mean"


@dataclass(frozen=True)
class Cell:
    """One number of a table, and the runs it follows from. `sd` needs at least two seeds."""

    value: float | None = None
    sd: float | None = None
    seeds: int = 0
    failed: int = 0
    trained: float | None = None  # parameters
    runs: tuple[str, ...] = ()

    def rounded(self) -> str | None:
        """Return the value as it is printed; values that print alike are equally good."""
        return None if self.value is None else f"{self.value:.2f}"

    def text(self) -> str:
        """Return what a reader sees: "42.31", "42.31 ± 0.40 (3)", "failed" or a dash."""
        if self.value is None:
            return FAILED if self.failed else MISSING
        spread = "" if self.sd is None else f" ± {self.sd:.2f} ({self.seeds})"
        return f"{self.rounded()}{spread}"


@dataclass(frozen=True)
class Row:
    """One setting: cells by data set, and their mean where no data set is missing."""

    method: str
    family: str
    detail: str
    setting: str
    percent: float | None  # equation 10
    cells: dict[str, Cell]
    average: Cell


@dataclass(frozen=True)
class Table:
    """All settings of one model, judged by one metric."""

    model: str
    metric: str
    higher_is_better: bool
    unit: str
    max_dets: str
    data_sets: list[str]
    rows: list[Row]
    runs: int
    notes: list[str]

    def columns(self) -> list[str]:
        """Return the headings of the columns that hold the metric."""
        return [*self.data_sets, AVERAGE] if len(self.data_sets) > 1 else self.data_sets

    def best(self, column: str) -> str | None:
        """Return the best value of a column as it is printed."""
        values = [v for row in self.rows if (v := cell(row, column).value) is not None]
        best = max if self.higher_is_better else min
        return Cell(best(values)).rounded() if values else None


def cell(row: Row, column: str) -> Cell:
    """Return a cell by its heading."""
    return row.average if column == AVERAGE else row.cells[column]


def ablation(records: list[Values], metric: str = "segm_AP") -> list[Table]:
    """Group runs into one table per model.

    Raises UserError when runs are finished, but none has the metric.
    """
    found = {key.split(".")[1] for run in records for key in run if key.startswith("metrics.")}
    if found and metric not in found:
        raise UserError(
            f"--metric {metric}: no run has it (choose from {', '.join(sorted(found))})"
        )
    by_model = grouped(arrange(records), "model")
    return [_table(model, metric, by_model[model]) for model in sorted(by_model)]


def grouped(runs: list[Run], field: str) -> dict[str, list[Run]]:
    """Return runs by one of their fields."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(getattr(run, field), []).append(run)
    return groups


def _table(model: str, metric: str, runs: list[Run]) -> Table:
    data_sets = sorted(grouped(runs, "data_set"))
    runs = sorted(runs, key=order)
    rows = [_row(group, data_sets, metric) for group in grouped(runs, "setting").values()]
    return Table(
        model=model,
        metric=metric,
        higher_is_better=_said(runs, f"metrics.{metric}.direction") != "lower",
        unit=_said(runs, f"metrics.{metric}.unit"),
        max_dets=_said(runs, "config.metrics.max_dets") or "100",
        data_sets=data_sets,
        rows=rows,
        runs=len(runs),
        notes=_notes(runs, rows, averaged=len(data_sets) > 1),
    )


def _row(runs: list[Run], data_sets: list[str], metric: str) -> Row:
    by_set = grouped(runs, "data_set")
    cells = {name: _cell(by_set.get(name, []), metric) for name in data_sets}
    return Row(
        method=runs[0].method,
        family=runs[0].family,
        detail=runs[0].detail,
        setting=runs[0].setting,
        percent=_mean(_numbers(runs, "params.percent")),
        cells=cells,
        average=_average(runs, list(cells.values()), metric),
    )


def _cell(runs: list[Run], metric: str) -> Cell:
    done = [run for run in runs if _value(run, metric) is not None]
    values = _numbers(done, f"metrics.{metric}.value")
    return Cell(
        value=_mean(values),
        sd=stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        failed=sum(run.values["status"] == "failed" for run in runs),
        trained=_mean(_numbers(runs, "params.trainable")),
        runs=tuple(run.values["id"] for run in done),
    )


def _average(runs: list[Run], cells: list[Cell], metric: str) -> Cell:
    """Average over data sets; its spread is that of the seeds' own averages, if all are there."""
    trained = _mean([c.trained for c in cells if c.trained is not None])
    values = [c.value for c in cells if c.value is not None]
    if len(values) < len(cells):
        return Cell(trained=trained)
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        if (value := _value(run, metric)) is not None:
            by_seed.setdefault(run.values.get("config.seed", 0), []).append(value)
    complete = [fmean(v) for v in by_seed.values() if len(v) == len(cells)]
    paired = len(complete) == len(by_seed) > 1
    return Cell(
        value=fmean(values),
        sd=stdev(complete) if paired else None,
        seeds=len(complete) if paired else 1,
        trained=trained,
    )


def _value(run: Run, metric: str) -> float | None:
    return run.values.get(f"metrics.{metric}.value") if run.values["status"] == "done" else None


def _numbers(runs: list[Run], key: str) -> list[float]:
    return [float(run.values[key]) for run in runs if run.values.get(key) is not None]


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _said(runs: list[Run], key: str) -> str:
    """Return what the first record that says something says."""
    return next((str(run.values[key]) for run in runs if run.values.get(key)), "")


def _notes(runs: list[Run], rows: list[Row], averaged: bool) -> list[str]:
    """Return what a reader must know before trusting the numbers."""
    notes = []
    cells = [c for row in rows for c in row.cells.values()]
    missing = sum(c.text() == MISSING for c in cells)
    if missing:
        means = "; means only over complete rows" if averaged else ""
        notes.append(
            f"{missing} of {len(cells)} cells missing ({MISSING}): no finished run yet{means}."
        )
    failed = [run.values for run in runs if run.values["status"] == "failed"]
    if failed:
        names = [f"{values['id']} ({_reason(values)})" for values in failed[:5]]
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        notes.append(f"{len(failed)} failed: {', '.join(names)}{more}.")
    code = Counter(_code(run.values) for run in runs if run.values["status"] == "done")
    if len(code) > 1:
        mixed = ", ".join(f"{n} at {version}" for version, n in sorted(code.items()))
        notes.append(f"Mixed code versions: {mixed}.")
    return notes


def _reason(values: Values) -> str:
    kind, message = (str(values.get(f"error.{word}") or "") for word in ("type", "message"))
    line = message.strip().partition("\n")[0]
    return f"{kind}: {line}"[:100] if line else kind or "no reason recorded"


def _code(values: Values) -> str:
    commit = values.get("git.commit")
    if not commit:
        return f"segsweep {values.get('versions.segsweep', 'of unknown version')}"
    return commit[:7] + ("+changes" if values.get("git.dirty") else "")

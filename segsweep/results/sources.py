"""Remarks below a table on what its numbers come from: versions of the code, counts of others."""

from __future__ import annotations

from collections import Counter, defaultdict

from segsweep.results.cells import Table
from segsweep.results.trace import code, heading
from segsweep.results.wording import Values, class_of, first


def mixed_code(runs: list[Values]) -> str:
    """Say which versions of the code made the runs, if there are several."""
    done = (run for run in runs if run["status"] == "done" and run["origin"] == "ours")
    versions = Counter(code(run) for run in done)
    if len(versions) < 2:
        return ""
    mixed = ", ".join(f"{n} at {version}" for version, n in sorted(versions.items()))
    return f"Mixed code versions: {mixed}."


def measured(runs: list[Values]) -> str:
    """Say where and how steps of training were measured, if there are such numbers."""
    conditions = (_condition(run) for run in runs if run.get("bench.train.median_ms") is not None)
    return f"Measured: {first(told)}." if (told := dict.fromkeys(conditions)) else ""


def _condition(run: Values) -> str:
    def said(key: str) -> str:
        return str(run.get(f"config.bench.{key}"))

    return (
        f"on {said('device')}, images of {said('size')}, steps of {said('train.batch')} "
        f"({said('train.at_once')} at once, {said('train.objects')} objects each) in "
        f"{run.get('config.trainer.precision')}, memory of the {run.get('bench.train.memory')}"
    )


def judged_elsewhere(table: Table) -> str:
    """Say which cells hold what runs reach on data that they were not trained on."""
    cells = [
        f"{row.setting} on {heading(column)}"
        for row in table.rows
        for column in table.columns
        if not column.is_mean and any("judges.run" in run for run in table.cell(row, column).runs)
    ]
    shift = all("judged" in run for run in table.runs)  # its columns say so
    return "" if shift or not cells else f"Judged there, trained on other data: {first(cells)}."


def counted_elsewhere(table: Table) -> str:
    """Say which rows hold parameters as another package counts them, not by a formula."""
    if not any(fact.startswith("params.") for fact in table.spec.facts):
        return ""
    counted: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        if package := getattr(class_of("peft", row.method), "counted_by", ""):
            counted[package].append(row.setting)
    parts = (f"by {package}: {first(rows)}" for package, rows in counted.items())
    return f"Parameters counted {'; '.join(parts)}." if counted else ""

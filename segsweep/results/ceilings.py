"""What annotations themselves would score (`metrics/ceiling.py`), beside what runs do."""

from __future__ import annotations

from collections.abc import Iterable

from segsweep.metrics.ceiling import notable
from segsweep.results.cells import Table
from segsweep.results.trace import heading
from segsweep.results.wording import Values, first, recorded_name


def ceilings(runs: Iterable[Values], metric: str) -> str:
    """Return the ceiling of a metric, "24.2", or "24.2 to 66.3" where runs have several.

    Nothing where no run has one that is worth a word.
    """
    found = set()
    for run in runs:
        name, value = run.get("data.ceiling.metric"), run.get("data.ceiling.value")
        if name is None or value is None or name != recorded_name(run, metric):
            continue
        direction = "lower" if run.get(f"metrics.{name}.direction") == "lower" else "higher"
        if notable(value, direction):
            found.add(f"{value:.1f}")
    ends = sorted(found, key=float)
    return " to ".join([ends[0], *ends[-1:][: len(ends) - 1]]) if ends else ""


def ceiling_remark(table: Table) -> str:
    """Say below a table what no number of a column can pass."""
    places = []
    for column in (column for column in table.columns if not column.is_mean):
        runs = (run for row in table.rows for run in table.cell(row, column).runs)
        if text := ceilings(runs, column.metric):
            places.append(f"{text} on {heading(column)}")
    if not places:
        return ""
    return (
        "Ceiling, what the annotations themselves score at the model's input size, with as many "
        f"objects as it finds and the metric counts: {first(places)}."
    )

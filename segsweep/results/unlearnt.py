"""The remark below a table on settings that have learnt nothing (segsweep/metrics/learnt.py)."""

from __future__ import annotations

from collections.abc import Iterator

from segsweep.metrics.learnt import CURES, FLOOR, learnt
from segsweep.results.cells import Table
from segsweep.results.trace import heading
from segsweep.results.wording import first


def unlearnt(table: Table) -> Iterator[str]:
    """Say where nothing has been learnt, or which of our settings have learnt nothing."""
    rows = [row for row in table.rows if row.origin == "ours" and row.average.trained]
    for column in (column for column in table.columns if not column.is_mean):
        values = {row.setting: row.cells[column.labels].value for row in rows}
        known = {setting: value for setting, value in values.items() if value is not None}
        low = [s for s, v in known.items() if not learnt(v, column.unit, column.direction)]
        below = f"below {FLOOR:g} in {heading(column)}"
        runs = [run for row in rows for run in row.cells[column.labels].runs]
        if all("judges.run" in run for run in runs):  # on data that they were not trained on
            if low:
                yield f"Hardly anything carries over to what is {below}: {first(low)}."
        elif low and len(low) == len(known):
            yield (
                f"Nothing has been learnt: all that was trained is {below}, where differences mean "
                f"nothing. {CURES}"
            )
        elif low:
            yield f"Nothing was learnt by what is {below}: {first(low)}."

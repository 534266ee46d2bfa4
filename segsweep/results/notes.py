"""What a reader must know before trusting the numbers of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from segsweep.results.cells import MISSING, Column, Table
from segsweep.results.pivot import Observation
from segsweep.results.reported import PRINTED_MEAN
from segsweep.results.settings import Values
from segsweep.results.stats import LEAST
from segsweep.results.wording import protocol_in_words

NAMED = 5  # of many things, how many are named
TIE = "≈"
MISPRINT = 0.011  # above what rounding a mean explains


def notes(table: Table, found: list[Observation], ours: bool) -> list[str]:
    """Return the remarks below a table: what is missing, failed, mixed, misprinted, unknown."""
    remarks = [
        _missing(table, found) if ours else "",
        _failed(table.runs),
        _code(table.runs),
        _mixed(table),
        _printed_means(table, found),
        _noise(table),
        _floor(table),
        _compared(table),
    ]
    return [remark for remark in remarks if remark]


def heading(column: Column) -> str:
    """Return the heading of a column in one line."""
    return " ".join(label for label in column.labels if label)


def some(words: Iterable[str]) -> str:
    """Return the first words, and how many more there are."""
    found = list(words)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _missing(table: Table, found: list[Observation]) -> str:
    """Name the cells without a number; beside published ones, those that only they have."""
    printed = {(o.run.setting, o.column) for o in found if o.run.values["origin"] == "reported"}
    ours = [row for row in table.rows if row.origin == "ours"]
    if printed and not ours:
        return f"No run of ours belongs to this table yet: {len(printed)} cells to fill."
    columns = [column for column in table.columns if not column.is_mean]
    asked = [(row, column) for row in ours for column in columns]
    if printed:
        asked = [(row, c) for row, c in asked if (row.setting, c.labels) in printed]
    absent = [
        f"{row.setting} on {heading(column)}"
        for row, column in asked
        if table.cell(row, column).text() == MISSING
    ]
    if not absent:
        return ""
    means = "; means only over complete rows" if any(c.is_mean for c in table.columns) else ""
    count = f"{len(absent)} of {len(asked)} cells missing ({MISSING})"
    return f"{count}: no finished run yet{means}: {some(absent)}."


def _failed(runs: list[Values]) -> str:
    failed = [run for run in runs if run["status"] == "failed"]
    names = [f"{run['id']} ({_reason(run)})" for run in failed]
    return f"{len(failed)} failed: {some(names)}." if failed else ""


def _reason(values: Values) -> str:
    kind, message = (str(values.get(f"error.{word}") or "") for word in ("type", "message"))
    line = message.strip().partition("\n")[0]
    return f"{kind}: {line}"[:100] if line else kind or "no reason recorded"


def _code(runs: list[Values]) -> str:
    done = (run for run in runs if run["status"] == "done" and run["origin"] == "ours")
    versions = Counter(code(run) for run in done)
    if len(versions) < 2:
        return ""
    mixed = ", ".join(f"{n} at {version}" for version, n in sorted(versions.items()))
    return f"Mixed code versions: {mixed}."


def code(values: Values) -> str:
    """Return the commit of a run, or the version where none was recorded."""
    commit = values.get("git.commit")
    if not commit:
        return f"segsweep {values.get('versions.segsweep', 'of unknown version')}"
    return commit[:7] + ("+changes" if values.get("git.dirty") else "")


def _mixed(table: Table) -> str:
    """Say which columns a mean is over when they were not judged alike."""
    columns = [column for column in table.columns if not column.is_mean]
    groups: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        for metric, protocol in column.kinds:
            groups.setdefault((metric, protocol), []).append(heading(column))
    kinds = {kind: where for kind, where in groups.items() if kind[1]}
    if len(groups) < 2 or not any(column.is_mean for column in table.columns):
        return ""
    parts = [f"{protocol_in_words(*kind)} ({', '.join(where)})" for kind, where in kinds.items()]
    return f"The mean is over measures whose scales are not the same: {'; '.join(parts)}."


def _printed_means(table: Table, found: list[Observation]) -> str:
    """Name published means that do not follow from the published cells."""
    printed = {o.run.setting: o.run.values.get(PRINTED_MEAN) for o in found}
    wrong = []
    for row in (row for row in table.rows if row.origin == "reported"):
        told, own = printed.get(row.setting), row.average.value
        if told is not None and own is not None and abs(own - told) > MISPRINT:
            wrong.append(f"{row.setting} {told:g} (its cells: {own:.2f})")
    return f"Means printed otherwise than their cells give: {some(wrong)}." if wrong else ""


def _noise(table: Table) -> str:
    """Say by which rule values tie, or why nothing can be said."""
    columns = [c for c in table.columns if c.direction and not c.is_mean]
    if not columns or len(table.rows) < 2:
        return ""
    origins = {row.origin for row in table.rows}
    known = [n for c in columns for o in origins if (n := table.noise(c, o)) is not None]
    spreads = any(cell.sd is not None for row in table.rows for cell in row.cells.values())
    if not known and not spreads:
        one = "seed" if any(table.floor(column) for column in columns) else "run"
        return (
            f"One {one} per cell: how much of a difference is noise cannot be said; "
            "bold is the highest number, no more."
        )
    return (
        f"{TIE}: within noise of the best, |difference| ≤ 2 √(s₁²/n₁ + s₂²/n₂); s is the cell's "
        "own standard deviation from 3 seeds on (or as printed), else its column's pooled one."
    )


def _floor(table: Table) -> str:
    """Say what runs of the same seed differ by."""
    told = []
    for column in (column for column in table.columns if not column.is_mean):
        if floor := table.floor(column):
            spread = f"{floor[0]:.{max(table.decimals(column), 2)}f}"
            told.append(f"s = {spread} from {floor[1]} same-seed repeats on {heading(column)}")
    return f"Noise floor: {some(told)}." if told else ""


def _compared(table: Table) -> str:
    tests = [row.test for row in table.rows if row.test]
    if not tests:
        return ""
    few = sum(test.pairs < LEAST for test in tests)
    weak = f"; {few} rows have fewer, so nothing there can be significant (n.s.)" if few else ""
    return (
        f"δ: equation 11, in percent. p (n): exact two-sided sign-flip test against the reference "
        f"over n pairs of data set and seed; p < 0.05 needs at least {LEAST} pairs{weak}. "
        f"*: p < 0.05 also after Holm's correction for {len(tests)} rows."
    )

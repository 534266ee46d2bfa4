"""What numbers follow from, and what a reader must know before trusting them.

A number of ours comes from runs, their configs and commits; a published one from a document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from segsweep.results.cells import MISSING, Column, Table
from segsweep.results.pivot import Observation
from segsweep.results.reported import FILE, PRINTED_MEAN
from segsweep.results.wording import Values, document, protocol_in_words

LEAST = 6  # pairs
NAMED = 5  # of many things, how many are named
TIE = "≈"
MISPRINT = 0.011  # above what rounding a mean explains


def notes(table: Table, observed: list[Observation], ours: bool) -> list[str]:
    """Return the remarks below a table: what is missing, failed, mixed, misprinted, unknown."""
    remarks = [
        _missing(table, observed) if ours else "",
        _failed(table.runs),
        _code(table.runs),
        _mixed(table),
        _printed_means(table, observed),
        _noise(table),
        _floor(table),
        _compared(table),
    ]
    return [remark for remark in remarks if remark]


def heading(column: Column) -> str:
    """Return the heading of a column in one line."""
    return " ".join(label for label in column.labels if label)


def first(words: Iterable[str]) -> str:
    """Return the first words, and how many more there are."""
    names = list(words)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _missing(table: Table, observed: list[Observation]) -> str:
    """Name the cells without a number; beside published ones, those that only they have."""
    printed = {(o.run.setting, o.column) for o in observed if o.run.values["origin"] == "reported"}
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
    return f"{count}: no finished run yet{means}: {first(absent)}."


def _failed(runs: list[Values]) -> str:
    failed = [run for run in runs if run["status"] == "failed"]
    names = [f"{run['id']} ({_reason(run)})" for run in failed]
    return f"{len(failed)} failed: {first(names)}." if failed else ""


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


def _printed_means(table: Table, observed: list[Observation]) -> str:
    """Name published means that do not follow from the published cells."""
    printed = {o.run.setting: o.run.values.get(PRINTED_MEAN) for o in observed}
    wrong = []
    for row in (row for row in table.rows if row.origin == "reported"):
        there, here = printed.get(row.setting), row.average.value
        if there is not None and here is not None and abs(here - there) > MISPRINT:
            wrong.append(f"{row.setting} {there:g} (its cells: {here:.2f})")
    return f"Means printed otherwise than their cells give: {first(wrong)}." if wrong else ""


def _noise(table: Table) -> str:
    """Say by which rule values tie, or why nothing can be said."""
    columns = [c for c in table.columns if c.direction and not c.is_mean]
    if not columns or len(table.rows) < 2:
        return ""
    origins = {row.origin for row in table.rows}
    known = [n for c in columns for o in origins if (n := table.noise(c, o)) is not None]
    spreads = any(cell.sd is not None for row in table.rows for cell in row.cells.values())
    if not known and not spreads:
        unit = "seed" if any(table.floor(column) for column in columns) else "run"
        return (
            f"One {unit} per cell: how much of a difference is noise cannot be said; "
            "bold is the highest number, no more."
        )
    return (
        f"{TIE}: within noise of the best, |difference| ≤ 2 √(s₁²/n₁ + s₂²/n₂); s is the cell's "
        "own standard deviation from 3 seeds on (or as printed), else its column's pooled one."
    )


def _floor(table: Table) -> str:
    """Say what runs of the same seed differ by."""
    floors = []
    for column in (column for column in table.columns if not column.is_mean):
        if floor := table.floor(column):
            spread = f"{floor[0]:.{max(table.decimals(column), 2)}f}"
            floors.append(f"s = {spread} from {floor[1]} same-seed repeats on {heading(column)}")
    return f"Noise floor: {first(floors)}." if floors else ""


def _compared(table: Table) -> str:
    tests = [row.test for row in table.rows if row.test]
    if not tests:
        return ""
    few = sum(test.units < LEAST for test in tests)
    weak = f"; {few} rows have fewer, so nothing there can be significant (n.s.)" if few else ""
    return (
        f"δ: equation 11, in percent. p (n): exact two-sided sign-flip test against the reference "
        f"over n pairs of data set and seed; p < 0.05 needs at least {LEAST} pairs{weak}. "
        f"*: p < 0.05 also after Holm's correction for {len(tests)} rows."
    )


@dataclass(frozen=True)
class Provenance:
    """One run, or one published number: its name, the file to look into, and more about it."""

    name: str
    file: str  # below the results folder
    about: str

    def text(self) -> str:
        """Return all in one line."""
        return f"{self.name}  {self.file}  {self.about}".rstrip()


def sources(runs: tuple[Values, ...]) -> list[Provenance]:
    """Return where the runs behind a number are recorded."""
    return [_source(run) for run in runs]


def _source(run: Values) -> Provenance:
    if run["origin"] == "reported":
        where = document(run["source.document"], run["source.table"])
        lines = run["source.lines"].split()
        note = f"; {run['source.note']}" if run["source.note"] else ""
        return Provenance(where, FILE.as_posix(), f"line {', '.join(lines)}{note}")
    directory = run.get("name") or run["id"]
    seed, again = run.get("config.seed", "?"), run.get("config.repeat")
    about = f"seed {seed}, {f'repeat {again}, ' if again else ''}commit {code(run)}"
    return Provenance(run["id"], f"runs/{directory}/config.yaml", about)


def as_text(tables: list[Table]) -> str:
    """Return every number of some tables with its sources, row by row, for the terminal."""
    lines = []
    for table in tables:
        for row, column in product(table.rows, table.columns):
            cell = table.cell(row, column)
            if cell.value is not None:
                place = f"{' '.join(row.labels)} | {heading(column)}"
                text = cell.text(table.decimals(column))
                lines.append(f"{table.title} {place} | {text}".strip())
                lines += [f"    {source.text()}" for source in sources(cell.runs)]
    return "\n".join(lines) + "\n"

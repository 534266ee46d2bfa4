"""Where a number comes from: runs, their configs and commits; or a document and its table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segsweep.results.cells import Cell, Table
from segsweep.results.notes import code, heading
from segsweep.results.reported import FILE
from segsweep.results.settings import Values
from segsweep.results.wording import document


@dataclass(frozen=True)
class Source:
    """One run, or one published number: its name, the file to look into, and more about it."""

    name: str
    file: str  # below the results folder
    about: str

    def text(self) -> str:
        """Return all in one line."""
        return f"{self.name}  {self.file}  {self.about}".rstrip()


@dataclass(frozen=True)
class Traced:
    """One number of a table and what it follows from."""

    row: str
    column: str
    text: str
    sources: list[Source]


def sources(runs: tuple[Values, ...]) -> list[Source]:
    """Return where the runs behind a number are recorded."""
    return [_source(run) for run in runs]


def _source(run: Values) -> Source:
    if run["origin"] == "reported":
        where = document(run["source.document"], run["source.table"])
        lines = run["source.lines"].split()
        note = f"; {run['source.note']}" if run["source.note"] else ""
        return Source(where, FILE.as_posix(), f"line {', '.join(lines)}{note}")
    directory = run.get("name") or run["id"]
    seed, again = run.get("config.seed", "?"), run.get("config.repeat")
    about = f"seed {seed}, {f'repeat {again}, ' if again else ''}commit {code(run)}"
    return Source(run["id"], f"runs/{directory}/config.yaml", about)


def trace(table: Table) -> Iterator[Traced]:
    """Yield every number of a table with its sources, row by row."""
    for row in table.rows:
        for column in table.columns:
            cell: Cell = table.cell(row, column)
            if cell.value is not None:
                text = cell.text(table.decimals(column))
                yield Traced(" ".join(row.labels), heading(column), text, sources(cell.runs))


def as_text(tables: list[Table]) -> str:
    """Return the sources of all numbers, for the terminal."""
    lines = []
    for table in tables:
        for traced in trace(table):
            lines.append(f"{table.title} {traced.row} | {traced.column} | {traced.text}".strip())
            lines += [f"    {source.text()}" for source in traced.sources]
    return "\n".join(lines) + "\n"

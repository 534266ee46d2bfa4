"""What numbers follow from: runs, their configs and commits; of a published one a document."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from segsweep.results.cells import Column, Table
from segsweep.results.reported import FILE
from segsweep.results.wording import Values, document, elided
from segsweep.run.folder import ELSEWHERE


def heading(column: Column) -> str:
    """Return the heading of a column in one line; a long one is elided."""
    return elided(" ".join(label for label in column.labels if label))


def code(values: Values) -> str:
    """Return the commit of a run, or the version where none was recorded."""
    commit = values.get("git.commit")
    if not commit:
        return f"segsweep {values.get('versions.segsweep', 'of unknown version')}"
    return commit[:7] + ("+changes" if values.get("git.dirty") else "")


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
    place = f"{ELSEWHERE}/{run['judges.name']}" if "judges.name" in run else "runs"
    return Provenance(run["id"], f"{place}/{directory}/config.yaml", about)


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

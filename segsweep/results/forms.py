"""What a table looks like: its `Sheet`, in Markdown, as CSV, and on a terminal.

The sheet has headings, entries, caption and notes; every form of output prints it, those of
typeset.py too.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from segsweep.results.cells import MISSING, Column, Row, Table
from segsweep.results.pivot import column_fields
from segsweep.results.trace import TIE, sources
from segsweep.results.wording import QUANTITIES, Values, document, protocol_in_words

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SHOWN = 4  # runs that a tip names
PERCENT = ("%", "percent")
STUBS = {"setting": "Setting", "method": "Method", "data_set": "Data set", "origin": "Origin"}
CSV_COLUMNS = (
    *("metric", "protocol", "method", "origin", "trained", "percent"),
    *("value", "sd", "seeds", "failed", "runs"),
)


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table; `bold`: the best of its column, `tie`: as good."""

    text: str
    bold: bool = False
    tie: bool = False
    runs: tuple[Values, ...] = field(default=(), compare=False)

    def tip(self) -> str:
        """Return what a page says where the pointer is on it: the first runs, and how many more."""
        names = [source.text() for source in sources(self.runs[:SHOWN])]
        more = len(self.runs) - SHOWN
        return "\n".join([*names, *([f"and {more} more"] if more > 0 else [])])

    def marked(self) -> str:
        """Return the text with the mark of a tie."""
        return f"{self.text} {TIE}" if self.tie else self.text


@dataclass(frozen=True)
class Sheet:
    """A table ready to be printed: `stub` heads the labels of rows, `head` each other column."""

    title: str
    caption: str
    stub: list[str]
    head: list[tuple[str, ...]]  # of equal depth, top-down
    body: list[list[Entry]]
    notes: list[str]

    def flat(self) -> list[str]:
        """Return the headings of all columns in one line."""
        return [*self.stub, *(" ".join(label for label in head if label) for head in self.head)]

    def levels(self) -> list[list[tuple[str, int]]]:
        """Return the levels of headings, top-down, each with the columns that a heading spans."""
        levels = []
        for level in range(len(self.head[0]) if self.head else 0):
            groups = groupby(self.head, key=lambda head: head[: level + 1])
            levels.append([(labels[level], len([*heads])) for labels, heads in groups])
        return levels


def sheet(table: Table) -> Sheet:
    """Lay a table out."""
    depth = len(table.columns[0].labels) if table.columns else 1
    facts = [QUANTITIES[name].heading for name in table.spec.facts]
    compared = ["δ (%)", "p (n)"] if any(row.test for row in table.rows) else []
    first, last = ([(*[""] * (depth - 1), text) for text in texts] for texts in (facts, compared))
    return Sheet(
        title=table.title or table.spec.heading,
        caption=caption(table),
        stub=[STUBS.get(name, name.rpartition(".")[2].capitalize()) for name in table.fields],
        head=[*first, *(column.labels for column in table.columns), *last],
        body=_body(table, bool(compared)),
        notes=table.notes,
    )


def caption(table: Table) -> str:
    """Return what the numbers are: measures, number of runs, how to read them."""
    origins = {row.origin for row in table.rows}
    cells = [cell for row in table.rows for cell in row.cells.values()]
    ours = sum(run["origin"] == "ours" for run in table.runs)
    best = any(column.direction for column in table.columns) and len(table.rows) > 1
    source, _, number = table.spec.reported.partition(" ")
    parts = [
        table.spec.caption,
        measures(table),
        f"{ours} run{'s' if ours != 1 else ''}." if "ours" in origins else "",
        f"Published numbers: {document(source, number)}." if "reported" in origins else "",
        "a ± s (n): mean and sample standard deviation over n seeds."
        if any(cell.seeds > 1 for cell in cells)
        else "",
        "Bold: best of its column." if best else "",
        "Trained: parameters, and their share 100 · trainable / (original + added)."
        if table.spec.facts
        else "",
    ]
    return " ".join(part for part in parts if part)


def measures(table: Table) -> str:
    """Return the measures in words: "COCO mask AP, maxDets 100, in percent, ..."; none of facts."""
    kinds: dict[str, None] = {}
    for column in table.columns:
        unit = "percent" if column.unit in PERCENT else column.unit
        for metric, protocol in column.kinds:
            if metric not in QUANTITIES:
                words = table.spec.labels.get(metric) or protocol_in_words(metric, protocol)
                kinds[f"{words}, in {unit}" if unit else words] = None
    if not kinds or len(kinds) > 3:
        return ""
    ours = any(row.origin == "ours" for row in table.rows)
    epoch = ", of the best epoch on the validation images;" if ours else "."
    return "; ".join(kinds) + epoch


def _body(table: Table, compared: bool) -> list[list[Entry]]:
    """Return the rows as entries, in the order of the headings."""
    facts = [aligned([row.facts[name] for row in table.rows]) for name in table.spec.facts]
    columns = [_column(table, column) for column in table.columns]
    rows = []
    for i, row in enumerate(table.rows):
        labels = [Entry(label) for label in row.labels]
        numbers = [Entry(texts[i]) for texts in facts]
        last = _comparison(row) if compared else []
        rows.append([*labels, *numbers, *(entries[i] for entries in columns), *last])
    return rows


def _column(table: Table, column: Column) -> list[Entry]:
    """Return the entries of a column; numbers that are no metric are aligned among themselves."""
    cells = [table.cell(row, column) for row in table.rows]
    ties, decimals = table.ties(column), table.decimals(column)
    texts = [cell.text(decimals) for cell in cells]
    if column.metric in QUANTITIES and not column.direction:
        texts = aligned([cell.value for cell in cells], table.spec.digits.get(column.metric))
    best = {origin: table.best(column, origin) for origin in ("ours", "reported")}
    return [
        Entry(
            text,
            bold=cell.value is not None and cell.rounded(decimals) == best[row.origin],
            tie=row.labels in ties,
            runs=cell.runs,
        )
        for row, cell, text in zip(table.rows, cells, texts, strict=True)
    ]


def _comparison(row: Row) -> list[Entry]:
    delta = MISSING if row.delta is None else f"{row.delta:+.2f}".replace("-", "−")
    test = row.test.text() + (" *" if row.remains else "") if row.test else MISSING
    return [Entry(delta), Entry(test)]


def aligned(values: list[float | None], decimals: int | None = None) -> list[str]:
    """Return numbers with equal decimals, two to five: two digits of the smallest, if possible."""
    smallest = min((v for v in values if v), default=1.0)
    if decimals is None:
        decimals = next((d for d in range(2, 5) if smallest * 10**d >= 9.5), 5)
    return [MISSING if v is None else "0" if v == 0 else f"{v:.{decimals}f}" for v in values]


def markdown(tables: list[Table]) -> str:
    """Return one Markdown section per table."""
    return "\n".join(_section(sheet(table)) for table in tables)


def _section(page: Sheet) -> str:
    head = page.flat()
    lines = [
        f"## {page.title}\n\n{page.caption}\n",
        "| " + " | ".join(_escaped(text) for text in head) + " |",
        "|" + ":--|" * len(page.stub) + "--:|" * len(page.head),
    ]
    for row in page.body:
        texts = [f"**{_escaped(e.text)}**" if e.bold else _escaped(e.marked()) for e in row]
        lines.append("| " + " | ".join(texts) + " |")
    notes = "".join(f"\n- {_escaped(note)}" for note in page.notes)
    return "\n".join(lines) + "\n" + (notes and notes + "\n")


def csv_text(tables: list[Table]) -> str:
    """Return one line per cell, with the ids of the runs that its number follows from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for i, table in enumerate(tables):
        levels = column_fields(table.spec)
        labels = [*table.spec.split, *table.fields, *levels]
        shown = [j for j, name in enumerate(labels) if name not in ("metric", "origin")]
        if i == 0:
            writer.writerow([*(labels[j] for j in shown), *CSV_COLUMNS])
        for row in table.rows:
            percent = row.facts.get("params.percent")
            for column in table.columns:
                if column.is_mean:
                    continue
                c = table.cell(row, column)
                texts = [*([table.title] if table.spec.split else []), *row.labels, *column.labels]
                protocols = " & ".join(protocol for _, protocol in column.kinds if protocol)
                numbers = [column.metric, protocols, row.method, row.origin, c.trained, percent]
                runs = " ".join(run["id"] for run in c.runs)
                writer.writerow(
                    [*(texts[j] for j in shown), *numbers, c.value, c.sd, c.seeds, c.failed, runs]
                )
    return out.getvalue()


def terminal(table: Table) -> RichTable:
    """Return the table for a terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    page = sheet(table)
    shown = RichTable(
        title=Text(page.title, "bold").append(f"\n{page.caption}", "not bold"),
        caption=Text("\n".join(page.notes)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for i, name in enumerate(page.flat()):
        left = i < len(page.stub)
        shown.add_column(Text(name), justify="left" if left else "right", no_wrap=left)
    for row in page.body:
        styles = ("bold" if e.bold else "dim" if e.text == MISSING else "" for e in row)
        shown.add_row(*(Text(e.marked(), style) for e, style in zip(row, styles, strict=True)))
    return shown


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

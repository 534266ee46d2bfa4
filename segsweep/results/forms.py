"""Tables in Markdown, as CSV, and on a terminal; for papers and browsers see typeset.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segsweep.base.csv_files import as_csv
from segsweep.base.shell import markdown_text
from segsweep.results.cells import MISSING, Table
from segsweep.results.pivot import column_fields
from segsweep.results.sheets import Sheet, sheets
from segsweep.results.wording import ROW, elided

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

CSV_COLUMNS = (
    *("metric", "protocol", "method", "origin", "trained", "percent"),
    *("value", "sd", "seeds", "failed", "may_be_best", "difference", "low", "high", "runs"),
)


def markdown(tables: list[Table]) -> str:
    """Return one Markdown section per table."""
    return "\n".join(_section(page) for table in tables for page in sheets(table))


def _section(page: Sheet) -> str:
    head = page.flat()
    lines = [
        f"## {markdown_text(page.title)}\n\n{markdown_text(page.caption)}\n",
        "| " + " | ".join(markdown_text(text) for text in head) + " |",
        "|" + ":--|" * len(page.stub) + "--:|" * len(page.head),
    ]
    for row in page.body:
        texts = [_emphasised(markdown_text(e.marked()), e.bold) for e in row]
        lines.append("| " + " | ".join(texts) + " |")
    notes = "".join(f"\n- {markdown_text(note)}" for note in page.notes)
    return "\n".join(lines) + "\n" + (notes and notes + "\n")


def _emphasised(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def csv_text(tables: list[Table]) -> str:
    """Return one line per cell, with the ids of the runs that its number follows from."""
    lines: list[list[Any]] = []
    for i, table in enumerate(tables):
        levels = column_fields(table.spec)
        split = [", ".join(table.spec.split)] if table.spec.split else []  # one title
        labels = [*split, *table.fields, *levels]
        shown = [j for j, name in enumerate(labels) if name not in ("metric", "origin")]
        if i == 0:
            lines.append([*(labels[j] for j in shown), *CSV_COLUMNS])
        told = [
            (column, table.bold(column) | table.ties(column), table.against(column))
            for column in table.columns
            if not column.is_mean
        ]
        for row in table.rows:
            percent = row.facts.get("params.percent")
            for column, best, against in told:
                c = table.cell(row, column)
                texts = [*([table.title] if split else []), *row.labels, *column.labels]
                protocols = " & ".join(protocol for _, protocol in column.kinds if protocol)
                numbers = [column.metric, protocols, row.method, row.origin, c.trained, percent]
                evidence = [c.value, c.sd, c.seeds, c.failed, int(row.labels in best)]
                evidence += against.get(row.labels, [None] * 3)
                runs = " ".join(run["id"] for run in c.runs)
                lines.append([*(texts[j] for j in shown), *numbers, *evidence, runs])
    return as_csv(lines)


def terminal(table: Table) -> Group:
    """Return the table, and its differences to a reference, for a terminal."""
    from rich.console import Group

    return Group(*map(_on_terminal, sheets(table)))


def _on_terminal(page: Sheet) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(page.title, "bold").append(f"\n{page.caption}", "not bold"),
        caption=Text("\n".join(page.notes)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for i, name in enumerate(page.flat()):
        left = i < len(page.stub)
        justify = "left" if left else "right"
        shown.add_column(Text(elided(name, ROW)), justify=justify, no_wrap=left)
    for row in page.body:
        styles = ("bold" if e.bold else "dim" if e.text == MISSING else "" for e in row)
        shown.add_row(*(Text(e.marked(), style) for e, style in zip(row, styles, strict=True)))
    return shown

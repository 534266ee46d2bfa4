"""What a table looks like: Markdown for documents, CSV for other programs, rich for a terminal."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from segsweep.collect.tables import MISSING, Table, cell

MILLION = 1e6
AP = {"segm_": "COCO mask {}, maxDets {}", "bbox_": "COCO box {}, maxDets {}"}
PERCENT = ("%", "percent")
CSV_COLUMNS = (
    *("model", "method", "setting", "trained", "percent", "data_set"),
    *("metric", "value", "sd", "seeds", "failed", "runs"),
)


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table; `bold` marks the best of its column."""

    text: str
    bold: bool = False


def metric_in_words(table: Table) -> str:
    """Return the metric's full name: "COCO mask AP, maxDets 100, in percent"."""
    name, unit = table.metric, "percent" if table.unit in PERCENT else table.unit
    for prefix, words in AP.items():
        if name.startswith(prefix):
            name = words.format(name.removeprefix(prefix), table.max_dets)
    return f"{name}, in {unit}" if unit else name


def caption(table: Table) -> str:
    """Return what the numbers are: metric, protocol, number of runs, how to read them."""
    several = any(cell(row, c).seeds > 1 for row in table.rows for c in table.columns())
    parts = [
        f"{metric_in_words(table)}, of the best epoch on the validation images;",
        f"{table.runs} run{'s' if table.runs != 1 else ''}.",
        "a ± s (n): mean and sample standard deviation over n seeds." if several else "",
        "Bold: best of its column.",
        "Trained: parameters, and their share 100 · trainable / (original + added).",
    ]
    return " ".join(part for part in parts if part)


def header(table: Table) -> list[str]:
    """Return the headings of all columns."""
    name = table.metric.removeprefix("segm_")
    columns = [f"{name} {column}" for column in table.columns()]
    return ["Setting", "Trained (M)", "Trained (%)", *columns]


def body(table: Table) -> list[list[Entry]]:
    """Return the rows as text, in the order of `header`."""
    trained = [row.average.trained for row in table.rows]
    millions = _aligned([None if n is None else n / MILLION for n in trained])
    percents = _aligned([row.percent for row in table.rows])
    best = {column: table.best(column) for column in table.columns()}
    rows = []
    for row, million, percent in zip(table.rows, millions, percents, strict=True):
        cells = {column: cell(row, column) for column in table.columns()}
        entries = [
            Entry(c.text(), c.value is not None and c.rounded() == best[column])
            for column, c in cells.items()
        ]
        rows.append([Entry(row.setting), Entry(million), Entry(percent), *entries])
    return rows


def markdown(tables: list[Table]) -> str:
    """Return one Markdown section per model."""
    sections = []
    for table in tables:
        head = header(table)
        lines = [
            f"## {table.model}\n\n{caption(table)}\n",
            "| " + " | ".join(_escaped(text) for text in head) + " |",
            "|:--" + "|--:" * (len(head) - 1) + "|",
        ]
        for row in body(table):
            texts = [f"**{_escaped(e.text)}**" if e.bold else _escaped(e.text) for e in row]
            lines.append("| " + " | ".join(texts) + " |")
        notes = "".join(f"\n- {_escaped(note)}" for note in table.notes)
        sections.append("\n".join(lines) + "\n" + (notes and notes + "\n"))
    return "\n".join(sections)


def csv_text(tables: list[Table]) -> str:
    """Return one line per cell, with the ids of the runs that its number follows from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for data_set, c in row.cells.items():
                own = [table.model, row.method, row.setting, c.trained, row.percent]
                number = [c.value, c.sd, c.seeds, c.failed, " ".join(c.runs)]
                writer.writerow([*own, data_set, table.metric, *number])
    return out.getvalue()


def terminal(table: Table) -> RichTable:
    """Return the table for a terminal."""
    shown = RichTable(
        title=Text(table.model, "bold").append(f"\n{caption(table)}", "not bold"),
        caption=Text("\n".join(table.notes)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for i, name in enumerate(header(table)):
        shown.add_column(Text(name), justify="right" if i else "left", no_wrap=i == 0)
    for row in body(table):
        styles = ("bold" if e.bold else "dim" if e.text == MISSING else "" for e in row)
        shown.add_row(*(Text(e.text, style) for e, style in zip(row, styles, strict=True)))
    return shown


def _aligned(values: list[float | None]) -> list[str]:
    """Return numbers with equal decimals, two to five: two digits of the smallest, if possible."""
    smallest = min((v for v in values if v), default=1.0)
    decimals = next((d for d in range(2, 5) if smallest * 10**d >= 9.5), 5)
    return [MISSING if v is None else "0" if v == 0 else f"{v:.{decimals}f}" for v in values]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

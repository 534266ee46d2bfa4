"""Tables for papers and browsers.

LaTeX has booktabs, headings of several rows, everything escaped; the HTML page needs nothing else,
its numbers lead to the runs they follow from.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from segsweep.base.shell import render
from segsweep.results.cells import MISSING, Table
from segsweep.results.forms import csv_text, markdown
from segsweep.results.sheets import Entry, Sheet, sheets
from segsweep.results.trace import sources
from segsweep.results.wording import COLUMN, ROW, elided

SYMBOLS = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "“": "``",
    "”": "''",
}
SIGNS = "±≈≤−†↑·√δαβκλφ²₁₂<>|"
COMMANDS = (
    r"\pm \approx \le - \dagger \uparrow \cdot \surd \delta \alpha \beta \kappa \lambda \varphi "
    r"^2 _1 _2 < > |"
)
MATHS = dict(zip(SIGNS, COMMANDS.split(), strict=True))
ESCAPED = str.maketrans(SYMBOLS | {symbol: f"${text}$" for symbol, text in MATHS.items()})


def latex(tables: list[Table]) -> str:
    """Return one floating table per table; the preamble needs `booktabs`."""
    head = "% needs \\usepackage{booktabs}; wide tables: \\usepackage{graphicx} and \\resizebox\n"
    pages = [(_label(table), page) for table in tables for page in sheets(table)]
    return head + "\n".join(_table(label, page) for label, page in pages)


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it stands; neighbouring formulas are joined."""
    return " ".join(text.splitlines()).translate(ESCAPED).replace("$$", "")


def _label(table: Table) -> str:
    words = f"{table.spec.name} {table.title}".split()
    return "-".join("".join(c for c in word if c.isalnum() or c == "_") for word in words)


def _table(label: str, page: Sheet) -> str:
    columns = "l" * len(page.stub) + "r" * len(page.head)
    caption = " ".join([f"{page.title}.", page.caption])
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_head(page),
        r"\midrule",
        *_body(page),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {escaped(note)}" for note in page.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(page: Sheet) -> list[str]:
    """Return the rows of headings; those that span several columns are underlined."""
    lines = []
    levels = page.levels() or [[]]
    for level in levels:
        cells = [escaped(text) if level is levels[-1] else "" for text in page.stub]
        rules, at = [], len(page.stub) + 1
        for text, width in level:
            spanned = rf"\multicolumn{{{width}}}{{c}}{{{escaped(text)}}}" if width > 1 else None
            cells.append(spanned if spanned and text else escaped(text) + " &" * (width - 1))
            if text and width > 1:
                rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines.append(" & ".join(cells) + r" \\")
        if rules:
            lines.append(" ".join(rules))
    return lines


def _body(page: Sheet) -> list[str]:
    """Return the lines of the body; where rows have several labels, groups are set apart."""
    groups = [list(rows) for _, rows in groupby(page.body, key=lambda row: row[0].text)]
    lines: list[str] = []
    for i, rows in enumerate(groups):
        lines += [r"\addlinespace"] if i and len(page.stub) > 1 else []
        for j, row in enumerate(rows):
            cells = [_entry(entry) for entry in row]
            if j and len(page.stub) > 1:
                cells[0] = ""
            lines.append(" & ".join(cells) + r" \\")
    return lines


def _entry(entry: Entry) -> str:
    text = escaped(entry.marked())
    return rf"\textbf{{{text}}}" if entry.bold else text


def html(tables: list[Table]) -> str:
    """Return the page of some tables; links lead to `../runs`, as from `results/tables`."""
    pages = [page for table in tables for page in sheets(table)]
    shown = [_shown(i, page) for i, page in enumerate(pages)]
    letters = {"columns": COLUMN, "long": ROW}
    title = tables[0].spec.heading
    return render("results/page.html", {"elided": elided}, title=title, tables=shown, **letters)


def _shown(number: int, page: Sheet) -> dict[str, Any]:
    """Return one table as the template wants it."""
    stubs, heads = len(page.stub), page.flat()[len(page.stub) :]
    groups, traced, line = [], [], 0
    for _, rows in groupby(page.body, key=lambda row: row[0].text if stubs > 1 else ""):
        group = list(rows)
        shown = []
        for i, row in enumerate(group):
            ids = [f"t{number}r{line}c{k}" for k in range(len(page.head))]
            cells = [_cell(entry, anchor) for entry, anchor in zip(row[stubs:], ids, strict=True)]
            traced += _traced(row, heads, ids, stubs)
            spans = [len(group) if stubs > 1 else 1, *[1] * (stubs - 1)]
            labels = [{"text": e.text, "rows": n} for e, n in zip(row, spans, strict=False)]
            shown.append({"labels": labels[1:] if stubs > 1 and i else labels, "cells": cells})
            line += 1
        groups.append(shown)
    return {"page": page, "levels": page.levels(), "groups": groups, "traced": traced}


def _cell(entry: Entry, anchor: str) -> dict[str, Any]:
    return {
        "text": entry.marked(),
        "id": anchor if entry.runs else "",
        "title": entry.tip(),
        "kind": "best" if entry.bold else "none" if entry.text == MISSING else "",
    }


def _traced(row: list[Entry], heads: list[str], ids: list[str], stubs: int) -> list[dict[str, Any]]:
    """Return the numbers of a row with their sources."""
    name = " ".join(entry.text for entry in row[:stubs])
    return [
        {"id": anchor, "name": f"{name}, {head}", "text": e.text, "sources": sources(e.runs)}
        for e, head, anchor in zip(row[stubs:], heads, ids, strict=True)
        if e.runs
    ]


FORMS: dict[str, Callable[[list[Table]], str]] = {
    "md": markdown,
    "tex": latex,
    "html": html,
    "csv": csv_text,
}
"""What makes the text of each file format."""


def texts(tables: list[Table], stem: Path) -> dict[Path, str]:
    """Return tables in every format, by their file: `stem`.md, .tex, ..."""
    return {stem.parent / f"{stem.name}.{end}": form(tables) for end, form in FORMS.items()}

"""Tables as one HTML page that needs nothing else; numbers lead to the runs they follow from."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from segsweep.results.cells import Table
from segsweep.results.layout import Entry, Sheet, sheet
from segsweep.results.trace import sources

SHOWN = 4  # runs that a tooltip names

TEMPLATE = Path(__file__).with_name("page.html")


def html(tables: list[Table]) -> str:
    """Return the page of some tables; links lead to `../runs`, as from `results/tables`."""
    from jinja2 import Environment

    shown = [_shown(i, sheet(table)) for i, table in enumerate(tables)]
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=tables[0].spec.heading, tables=shown
    )


def _shown(number: int, page: Sheet) -> dict[str, Any]:
    """Return one table as the template wants it."""
    depth = len(page.head[0]) if page.head else 0
    stubs, heads = len(page.stub), page.flat()[len(page.stub) :]
    groups, traced, line = [], [], 0
    for _, rows in groupby(page.body, key=lambda row: row[0].text if stubs > 1 else ""):
        group = list(rows)
        shown = []
        for i, row in enumerate(group):
            ids = [f"t{number}r{line}c{k}" for k in range(len(page.head))]
            cells = [_cell(entry, own) for entry, own in zip(row[stubs:], ids, strict=True)]
            traced += _traced(row, heads, ids, stubs)
            first = [] if stubs > 1 and i else [_label(row[0], len(group) if stubs > 1 else 1)]
            rest = [_label(entry, 1) for entry in row[1:stubs]]
            shown.append({"labels": [*first, *rest], "cells": cells})
            line += 1
        groups.append(shown)
    levels = [page.spans(level) for level in range(depth)]
    return {"page": page, "levels": levels, "groups": groups, "traced": traced}


def _label(entry: Entry, rows: int) -> dict[str, Any]:
    return {"text": entry.text, "rows": rows}


def _cell(entry: Entry, own: str) -> dict[str, Any]:
    names = [source.text() for source in sources(entry.runs[:SHOWN])]
    more = len(entry.runs) - SHOWN
    kind = "best" if entry.bold else "none" if entry.text == "—" else ""
    return {
        "text": entry.marked(),
        "id": own if entry.runs else "",
        "title": "\n".join([*names, *([f"and {more} more"] if more > 0 else [])]),
        "kind": kind,
    }


def _traced(row: list[Entry], heads: list[str], ids: list[str], stubs: int) -> list[dict[str, Any]]:
    """Return the numbers of a row with their sources."""
    name = " ".join(entry.text for entry in row[:stubs])
    return [
        {"id": own, "name": f"{name}, {head}", "text": e.text, "sources": sources(e.runs)}
        for e, head, own in zip(row[stubs:], heads, ids, strict=True)
        if e.runs
    ]

"""CSV that a spreadsheet may open: a cell of anybody's text is never a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STARTS = frozenset("=+-@\t\r\n")  # of what spreadsheets compute, or take apart
NUMERAL = re.compile(r"[-+\d.,%±()\seE]*")  # `-1.2`, `-0.3 ± 0.1`, a dash for nothing


def as_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV. Text that a spreadsheet would compute gets a `'` before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(
        [_quoted(v) if type(v) is str and v[:1] in STARTS else v for v in row] for row in rows
    )
    return out.getvalue().replace("\r", " ")  # csv leaves it bare, and spreadsheets begin a row


def csv_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return dicts as CSV under these columns; what a row lacks stays empty."""
    return as_csv([columns, *([row.get(column) for column in columns] for row in rows)])


def _quoted(text: str) -> str:
    return text if text.strip() and NUMERAL.fullmatch(text) else f"'{text}"

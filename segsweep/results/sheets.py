"""What a table looks like, whatever prints it: a `Sheet` of headings, entries, caption, notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from segsweep.results.cells import MISSING, Column, Key, Row, Table
from segsweep.results.evidence import Difference
from segsweep.results.remarks import RISING, TIE, UNSTABLE, shown
from segsweep.results.trace import sources
from segsweep.results.wording import QUANTITIES, Values, document, elided, protocol_in_words

SHOWN = 4  # runs that a tip names
PERCENT = ("%", "percent")
STUBS = {"setting": "Setting", "method": "Method", "data_set": "Data set", "origin": "Origin"}


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table; `bold`: the best of its column; `mark` says more."""

    text: str
    bold: bool = False
    mark: str = ""
    runs: tuple[Values, ...] = field(default=(), compare=False)

    def tip(self) -> str:
        """Return what a page says where the pointer is on it: the first runs, and how many more."""
        names = [source.text() for source in sources(self.runs[:SHOWN])]
        more = len(self.runs) - SHOWN
        return "\n".join([*names, *([f"and {more} more"] if more > 0 else [])])

    def marked(self) -> str:
        """Return the text with its mark."""
        return f"{self.text} {self.mark}" if self.mark else self.text


@dataclass(frozen=True)
class Sheet:
    """A table ready to be printed: `stub` heads the labels of rows, `head` each other column.

    A long title is elided; then the caption begins with all of it.
    """

    whole: str
    about: str
    stub: list[str]
    head: list[tuple[str, ...]]  # of equal depth, top-down
    body: list[list[Entry]]
    notes: list[str]

    @property
    def title(self) -> str:
        """What stands over it."""
        return elided(self.whole)

    @property
    def caption(self) -> str:
        """What its numbers are."""
        return self.about if self.title == self.whole else f"{self.whole}. {self.about}"

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


def sheets(table: Table) -> list[Sheet]:
    """Return a table, and the differences to its reference rows where the noise is known."""
    page = differences(table)
    return [sheet(table), *([page] if page else [])]


def sheet(table: Table) -> Sheet:
    """Lay a table out."""
    depth = len(table.columns[0].labels) if table.columns else 1
    facts = [QUANTITIES[name].heading for name in table.spec.facts]
    last = _last(table)
    above = [""] * (depth - 1)
    return Sheet(
        whole=table.title or table.spec.heading,
        about=caption(table),
        stub=_stub(table),
        head=[
            *((*above, text) for text in facts),
            *(column.labels for column in table.columns),
            *((*above, text) for text in last),
        ],
        body=_body(table, last),
        notes=table.notes,
    )


def _stub(table: Table) -> list[str]:
    return [STUBS.get(name, name.rpartition(".")[2].capitalize()) for name in table.fields]


def _last(table: Table) -> dict[str, Callable[[Row], str | None]]:
    """Return what stands behind the columns of a table: its heading, and its text in a row."""
    last: dict[str, Callable[[Row], str | None]] = {}
    if any(row.reference for row in table.rows):
        last["δ (%)"] = lambda row: None if row.delta is None else _signed(row.delta, 2)
    for test, words in {"here": "p on these sets (n)", "beyond": "p beyond these sets (n)"}.items():
        if shown(table, test):
            last[words] = partial(_test, test)
    if any(row.rank for row in table.rows):
        last["Rank"] = lambda row: row.rank and row.rank.text()
        last["First (%)"] = lambda row: row.rank and f"{100 * row.rank.first:.0f}"
    return last


def _test(test: str, row: Row) -> str | None:
    result = getattr(row, test)
    return result and result.text() + (" *" if getattr(row, f"{test}_remains") else "")


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


def differences(table: Table) -> Sheet | None:
    """Lay out how far rows are from their reference rows; None where nothing tells the noise."""
    found = {c.labels: intervals for c in table.columns if (intervals := table.against(c))}
    if not found:
        return None
    columns = [column for column in table.columns if column.labels in found]
    rows = [row for row in table.rows if any(row.labels in by_row for by_row in found.values())]
    names = list(dict.fromkeys(row.reference for row in rows if row.reference))
    reference = " or ".join(", ".join(labels) for labels in names)
    title = table.title or table.spec.heading
    return Sheet(
        whole=f"{title}: difference to {reference}",
        about="Each with an interval that holds the true difference: two-sided Dunnett, in 95 % "
        "of columns for all rows at once. *: no difference is ruled out.",
        stub=_stub(table),
        head=[column.labels for column in columns],
        body=[
            [
                *map(Entry, row.labels),
                *(_difference(found[c.labels], row.labels, table.decimals(c)) for c in columns),
            ]
            for row in rows
        ],
        notes=[],
    )


def _difference(intervals: dict[Key, Difference], row: Key, decimals: int) -> Entry:
    if (interval := intervals.get(row)) is None:
        return Entry(MISSING)
    middle, low, high = (_signed(value, decimals) for value in interval)
    return Entry(f"{middle} ({low} to {high})", mark="*" if interval.differs else "")


def caption(table: Table) -> str:
    """Return what the numbers are: measures, number of runs, how to read them."""
    origins = {row.origin for row in table.rows}
    cells = [cell for row in table.rows for cell in row.cells.values()]
    own = (run for run in table.runs if run["origin"] == "ours")
    ours = len({run.get("judges.run", run["id"]) for run in own})
    best = any(table.bold(column) for column in table.columns)
    several = any(len(table.contests(c)) > len(origins) for c in table.columns if c.direction)
    source, _, number = table.spec.reported.partition(" ")
    parts = [
        table.spec.caption,
        measures(table),
        f"{ours} run{'s' if ours != 1 else ''}." if "ours" in origins else "",
        f"Published numbers: {document(source, number)}." if "reported" in origins else "",
        "a ± s (n): mean and sample standard deviation over n seeds."
        if any(cell.seeds > 1 for cell in cells)
        else "",
        f"Bold: best of its column{', of each model' if several else ''}." if best else "",
        "Trained: parameters, and their share of all (original + added) in percent."
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
    return "; ".join(kinds) + (f", of the best epoch on {_chosen_on(table)};" if ours else ".")


def _chosen_on(table: Table) -> str:
    """Return by which images the best epochs were chosen, in words."""
    own = (run for run in table.runs if run["origin"] == "ours")
    parts = {run.get("config.data.select") or "val" for run in own}
    words = {"val": "the validation images", "held": "images held out for that"}
    return " or on ".join(text for part, text in words.items() if part in parts)


def _body(table: Table, last: dict[str, Callable[[Row], str | None]]) -> list[list[Entry]]:
    """Return the rows as entries, in the order of the headings."""
    facts = [aligned([row.facts[name] for row in table.rows]) for name in table.spec.facts]
    columns = [_column(table, column) for column in table.columns]
    return [
        [
            *map(Entry, row.labels[:-1]),
            Entry(row.labels[-1], mark=RISING if row.rising() else ""),
            *(Entry(texts[i]) for texts in facts),
            *(entries[i] for entries in columns),
            *(Entry(text(row) or MISSING) for text in last.values()),
        ]
        for i, row in enumerate(table.rows)
    ]


def _column(table: Table, column: Column) -> list[Entry]:
    """Return the entries of a column; numbers that are no metric are aligned among themselves."""
    cells = [table.cell(row, column) for row in table.rows]
    texts = [cell.text(table.decimals(column)) for cell in cells]
    if column.metric in QUANTITIES and not column.direction:
        texts = aligned([cell.value for cell in cells], table.spec.digits.get(column.metric))
    bold, marks = table.bold(column), dict.fromkeys(table.ties(column), TIE)
    marks |= dict.fromkeys(() if column.is_mean else table.unstable(column), UNSTABLE)
    return [
        Entry(text, row.labels in bold, marks.get(row.labels, ""), cell.runs)
        for row, cell, text in zip(table.rows, cells, texts, strict=True)
    ]


def aligned(values: list[float | None], decimals: int | None = None) -> list[str]:
    """Return numbers with equal decimals, two to five: two digits of the smallest, if possible."""
    smallest = min((v for v in values if v), default=1.0)
    if decimals is None:
        decimals = next((d for d in range(2, 5) if smallest * 10**d >= 9.5), 5)
    return [MISSING if v is None else "0" if v == 0 else f"{v:.{decimals}f}" for v in values]

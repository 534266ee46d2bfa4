"""Writes the matrix of docs/studies.md: of every printed number, whether it is reproduced here.

python scripts/make_studies.py            writes the page anew
python scripts/make_studies.py --check    exit 1 if it would be another

results/reported/reported.csv       the printed numbers
results/reported/params_<study>.csv what is known of each printed count, as `params --check` has it
results/reported/studies.csv        what is known of the others; the first line that fits holds
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.package import packaged
from segsweep.results.spec import load, names
from segsweep.results.wording import document, label_of, published

REPORTED = packaged("results/reported")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "studies.md"
BEGIN, END = "<!-- matrix: scripts/make_studies.py -->\n", "<!-- end of matrix -->\n"
PLACE = ("source", "table", "model", "backbone", "method", "dataset", "metric")
ROW = ("table", "model", "backbone", "method", "method_params")
COUNTS = ("params.trainable", "params.percent")
FEW = 2  # rows that are told by their absence
Line = dict[str, str]
Place = tuple[str, str]  # model and setting of a row, data set and metric of a column


@dataclass(frozen=True)
class Cell:
    """One printed number: its row and column as they are read, and what is known of it."""

    row: Place
    column: Place
    verdict: str
    reason: str


def lines(name: str) -> list[Line]:
    """Read a file of results/reported."""
    with (REPORTED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cells(printed: Sequence[Line], entries: Sequence[Line]) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells of every published table, by document and table.

    Raises UserError for a number of which no line says anything.
    """
    counted = {
        (path.stem.removeprefix("params_"), *(line[key] for key in ROW)): line
        for path in sorted(REPORTED.glob("params_*.csv"))
        for line in lines(path.name)
    }
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for line in printed:
        verdict, reason = known(line, entries)
        count = counted.get((line["source"], *(line[key] for key in ROW)))
        if count and _word("metric", line["metric"]) in COUNTS:
            verdict, reason = count["verdict"], count["reason"]
        where = line["source"], line["table"]
        found[where].append(Cell(_row(line), _column(line), verdict, reason))
    return found


def known(line: Line, entries: Sequence[Line]) -> tuple[str, str]:
    """Return verdict and reason of the first entry that fits a printed number."""
    for entry in entries:
        if all(not entry[key] or line[key] in entry[key].split("|") for key in PLACE):
            return entry["verdict"], entry["reason"]
    place = ", ".join(line[key] for key in PLACE if line[key])
    raise UserError(f"{REPORTED / 'studies.csv'}: no line fits the printed number of {place}")


def _word(kind: str, printed: str) -> str:
    name = published(kind).get(printed)
    return name.word if name else printed


def _row(line: Line) -> Place:
    word = _word("peft", line["method"])
    method = label_of("peft", word) or word or "the data sets"
    options = [f"{k}={v}" for k, v in json.loads(line["method_params"] or "{}").items()]
    model = " ".join(filter(None, (line["model"], line["backbone"])))
    return model, method + (f" ({', '.join(options)})" if options else "")


def _column(line: Line) -> Place:
    return line["dataset"].partition(" (")[0].partition(",")[0], line["metric"]


def blocks(table: Sequence[Cell]) -> Iterator[tuple[str, str, int, str, str]]:
    """Yield rows x columns of which the same is known: both, how many numbers, verdict, reason."""
    rows_of_all = list(dict.fromkeys(cell.row for cell in table))
    columns_of_all = list(dict.fromkeys(cell.column for cell in table))
    groups: dict[tuple[str, str], dict[Place, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for cell in table:
        groups[cell.verdict, cell.reason][cell.row].append(cell.column)
    for (verdict, reason), columns in groups.items():
        alike: dict[tuple[Place, ...], list[Place]] = defaultdict(list)
        for row, several in columns.items():
            alike[tuple(several)].append(row)
        for several, rows in alike.items():
            number = len(several) * len(rows)
            places = _told(rows, rows_of_all), _told(several, columns_of_all)
            yield *places, number, verdict, reason


def _told(some: Sequence[Place], every: Sequence[Place]) -> str:
    """Return places as "all", or "ATSS SAM-B: all but Fix; SOLO SAM-B: LoRA, SSF"."""
    if {*some} == {*every}:
        return "all"
    parts = []
    for head in dict.fromkeys(head for head, _ in some):
        own = [inside for of, inside in some if of == head]
        others = [inside for of, inside in every if of == head and inside not in own]
        few = len(others) <= FEW < len(own)
        but = f"all but {', '.join(others)}" if others else "all"
        parts.append(": ".join(filter(None, (head, but if few else ", ".join(own)))))
    return "; ".join(parts)


def matrix(found: dict[tuple[str, str], list[Cell]]) -> str:
    """Return the matrix as Markdown: a table for each published one."""
    specs = {load(name).reported: name for name in names()}
    text = []
    for (source, table), several in sorted(found.items()):
        heading = document(source, table)
        text.append(f"### {heading[0].upper()}{heading[1:]}\n\n")
        if name := specs.get(f"{source} {table}"):
            text.append(f"`python -m segsweep table {name}`\n\n")
        text.append("| rows | columns | numbers | | why |\n|:--|:--|--:|:--|:--|\n")
        text += ("| " + " | ".join(map(str, block)) + " |\n" for block in blocks(several))
        text.append("\n")
    return "".join(text)


def page(text: str) -> str:
    """Return the page with its matrix made anew."""
    before, _, rest = text.partition(BEGIN)
    made = matrix(cells(lines("reported.csv"), lines("studies.csv")))
    return before + BEGIN + "\n" + made + END + rest.partition(END)[2]


def main() -> int:
    """Write the page, or say with `--check` whether it is as it would be written."""
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if "--check" in sys.argv:
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

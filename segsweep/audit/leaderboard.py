"""A leaderboard: a column of names and columns of numbers, read as cells.

Cells may be marked (`**bold**`, `\\textbf{}`, `\\underline{}`), have a spread (`a ± s`) and a unit
(`%`, `M`); a line that has a name only heads the group below. Heads may have a unit in brackets, an
arrow for the direction, and words of data sets beside that of the metric (`Kvasir Dice (%) ↑`). A
mean, a delta and the number of items (`n`) are known by their heads.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import median

from segsweep.audit.averages import AVERAGE
from segsweep.audit.bounds import AP, OVERLAP
from segsweep.audit.cells import COLUMNS, PrintedCell, Role
from segsweep.audit.grim import SHARES
from segsweep.audit.relations import TIED
from segsweep.base.errors import UserError

SEPARATORS = ",;\t|"
MISSING = frozenset(("", "-", "–", "—", "*", "/", "n/a", "na", "nan", "?"))
BOLD = re.compile(
    r"\*\*(.+?)\*\*|__(.+?)__|\\(?:textbf|mathbf|bm)\{(.+?)\}|<(?:b|strong)>(.+?)</.*?>"
)
UNDERLINED = re.compile(r"\\underline\{(.+?)\}|<u>(.+?)</u>")
NUMBER = re.compile(
    r"(?P<value>[+-]?(\d+([.,]\d+)?|[.,]\d+))\s*"
    r"((±|\\pm|\+/?-)\s*(?P<std>\d*[.,]?\d+)|\((?P<brackets>\d*[.,]?\d+)\))?\s*"
    r"(?P<unit>\\?%|[KMGB]|ms|s)?\s*[†‡§*]*"
)
HEAD_UNIT = re.compile(r"[\[(]\s*(\\?%|percent|[KMGB]B?|ms|s|h|FPS|px)\s*[\])]", re.IGNORECASE)
ARROWS = (("lower", r"↓|\\downarrow"), ("higher", r"↑|\\uparrow"))
ITEMS = re.compile(r"#?\s*(n|items|images|samples|n_items|n_images)", re.IGNORECASE)
PARAMS = re.compile(r"(#|trainable|tuned|updated|learnable|\s|_)*param(eter)?s?\b.*", re.IGNORECASE)
SHARE = re.compile(r"(ratio|share|percent|pct|trainable)\b.*", re.IGNORECASE)
COSTS = re.compile(
    r"\b(fps|g?flops|mem(ory)?|time|latency|speed|throughput|epochs?|iter\w*|steps?|year|rank|size|"
    r"lr|gpus?|cost)\b|#",
    re.IGNORECASE,
)
LOWER = re.compile(
    r"\b(ber|mae|rmse|err|loss|time|latency|mem|g?flops|size|hd\d*|cost)", re.IGNORECASE
)
DELTA = re.compile(r"^\s*(Δ|δ|\\[Dd]elta|delta)[\s_]*", re.IGNORECASE)
WORDS = ("Acc", "aAcc", "F1", "BER", "MAE", *OVERLAP, *(word for words in TIED for word in words))
KNOWN = {word.lower(): word for words in (WORDS, *OVERLAP.values()) for word in words}


@dataclass(frozen=True)
class ColumnHead:
    """What stands above a column of numbers."""

    text: str
    dataset: str
    metric: str  # nothing: not named
    unit: str  # nothing: not told
    note: str


@dataclass(frozen=True)
class Number:
    """One number of a leaderboard as printed, with its marks."""

    text: str
    std: str
    unit: str
    note: str


def is_leaderboard(path: Path) -> bool:
    """Say whether a file has other columns than those of one number a line."""
    _, rows = _rows(path)
    names = {name.strip() for name in rows[0][1]} if rows else set(COLUMNS)
    return not ("value" in names and names & {"source", "metric"})


def read_leaderboard(path: Path, items: int | None = None) -> list[PrintedCell]:
    """Return the numbers of a leaderboard; `items` is how many were counted, where none says it.

    Raises:
        UserError: it has no column of names or of numbers, lines of other lengths, or cells in a
            column of numbers that are none, by line and column.
    """
    separator, ((_, names), *rows) = _rows(path)
    names = [name.strip() for name in names]
    if len(names) < 2 or not rows:
        raise UserError(f"{path}: no table: needs a line of heads, a column of names, and numbers")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: more than one column is headed {', '.join(map(repr, twice))}")
    for line, row in rows:
        if len(row) != len(names):
            told = f"has {len(row)} cells, its heads are {len(names)}: {', '.join(names)}"
            raise UserError(f"{path}, line {line}: {told}; is {separator!r} what separates them?")
    columns = [[_number(row[i], separator) for _, row in rows] for i in range(len(names))]
    filled = [[row[i].strip().lower() not in MISSING for _, row in rows] for i in range(len(names))]
    of_numbers = [
        i
        for i, column in enumerate(columns)
        if 2 * sum(map(bool, column)) >= max(sum(filled[i]), 1)
    ]
    of_words = [i for i in range(len(names)) if i not in of_numbers]
    if not of_words or not of_numbers:
        missing = "names" if not of_words else "numbers"
        raise UserError(f"{path}: no column of {missing} among {', '.join(names)}")
    for i in of_numbers:
        for (line, row), number, full in zip(rows, columns[i], filled[i], strict=True):
            if full and number is None:
                told = f"{row[i]!r} is no number such as 42.95, **42.95** or 42.95 ± 0.3"
                raise UserError(f"{path}, line {line}, column {names[i]}: {told}")
    heads = {i: _head(names[i], [n for n in columns[i] if n]) for i in of_numbers}
    words = {i: names[i] for i in of_words}
    return _cells(path, rows, columns, heads, words, items)


def _rows(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return what separates the cells of a file, and its lines that are not empty, numbered."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
            separator = max(SEPARATORS, key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader if any(c.strip() for c in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if separator == "|":  # of Markdown: no outer cells, no line below the heads
        if first.lstrip().startswith("|"):
            rows = [(line, row[1:-1]) for line, row in rows]
        rows = [(line, row) for line, row in rows if set("".join(row)) - set("-: ")]
    return separator, rows


def _number(cell: str, separator: str) -> Number | None:
    """Return a printed number; nothing if it is none."""
    text, notes = cell.strip(), []
    for note, mark in (("bold", BOLD), ("underlined", UNDERLINED)):
        marked = mark.sub(lambda m: next(filter(None, m.groups())), text)
        notes += [note] * (marked != text)
        text = marked
    text = text.replace("$", "").replace("−", "-").strip()
    if separator == "," and re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")  # of thousands
    if not (matched := NUMBER.fullmatch(text)):
        return None
    value, std = matched["value"], matched["std"] or matched["brackets"] or ""
    value, std = (re.sub(r"^([+-]?)\.", r"\g<1>0.", t.replace(",", ".")) for t in (value, std))
    return Number(value, std, (matched["unit"] or "").replace("\\", ""), ", ".join(notes))


def _head(text: str, numbers: Sequence[Number]) -> ColumnHead:
    """Return what a head tells, and what the numbers below it tell of the unit."""
    name, note = text.replace("$", ""), ""
    for word, arrow in ARROWS:
        if re.search(arrow, name):
            name, note = re.sub(arrow, "", name), f"{word} is better"
    unit = matched[1].replace("\\", "") if (matched := HEAD_UNIT.search(name)) else ""
    unit = unit or next((n.unit for n in numbers if n.unit), "")
    name = HEAD_UNIT.sub("", name).strip()
    if PARAMS.fullmatch(name) or (SHARE.fullmatch(name) and unit == "%"):
        return ColumnHead(
            text, "", "trainable_pct" if unit == "%" else "trainable_params", unit or "M", ""
        )
    if not note and LOWER.search(name):
        note = "lower is better"
    if COSTS.search(name):
        return ColumnHead(text, "", name, unit, note)
    delta = DELTA.search(name)
    name = DELTA.sub("", name)
    words = [_word(word) for word in name.split()]
    metric = next((w for w in words if w in KNOWN.values() or AP.fullmatch(w)), "")
    metric = metric or next((w for w in words if SHARES.fullmatch(w) or "IoU_" in w), "")
    rest = " ".join(w for w in words if w != metric)
    dataset = "Average" if rest and AVERAGE.fullmatch(rest) else rest
    unit = unit or _scale(numbers, bool(metric))
    values = [Fraction(n.text) for n in numbers]
    best = {Fraction(n.text) for n in numbers if "bold" in n.note}
    if not note and not metric and best == {min(values, default=None)} != {max(values)}:
        note = "lower is better"  # of a metric that is not known, the bold number tells
    if delta:
        return ColumnHead(text, dataset, f"delta_{metric}", "%", note)
    return ColumnHead(text, dataset, metric, unit, note)


def _word(word: str) -> str:
    """Return a word of a head as the rules spell it: `AP@0.5` is AP50."""
    word = re.sub(r"@\[?\.?0?\.5:.*", "", word)
    word = re.sub(r"(?<=AP)[@_]?0?\.(50?|75)$", lambda m: "75" if m[1] == "75" else "50", word)
    return KNOWN.get(word.lower(), word)


def _scale(numbers: Sequence[Number], known: bool) -> str:
    """Return whether scores are percentages or shares of 1; nothing if that is not known."""
    values = [Fraction(n.text) for n in numbers]
    outside = sum(not 0 <= value <= 100 for value in values)
    whole = not any("." in n.text for n in numbers)
    if not known and (whole or outside > (len(values) >= 4)):
        return ""
    return "1" if median(values) <= 1 else "%"


def _cells(
    path: Path,
    rows: Sequence[tuple[int, list[str]]],
    columns: Sequence[Sequence[Number | None]],
    heads: dict[int, ColumnHead],
    words: dict[int, str],
    items: int | None,
) -> list[PrintedCell]:
    """Return all numbers as cells, with groups as models and further words as parameters."""
    counts = next((i for i, h in heads.items() if ITEMS.fullmatch(h.text.strip())), None)
    heads = _completed({i: h for i, h in heads.items() if i != counts})
    cells, group, seen = [], "", dict[tuple, list]()
    for place, (line, row) in enumerate(rows):
        numbers = {i: n for i in heads if (n := columns[i][place])}
        name, *further = (re.sub(r"\*\*|__|\\textbf|[{}$]", "", row[i]).strip() for i in words)
        if not numbers:
            group = name
            continue
        params = tuple((k, w) for k, w in zip([*words.values()][1:], further, strict=True) if w)
        texts = [n.text for n in numbers.values()]
        if seen.setdefault((group, name, params), texts) != texts:
            params = (*params, ("line", line))  # another row of the same name
        number = columns[counts][place] if counts is not None else None
        told = number.text if number else str(items or "")
        if told and not (told.isdigit() and int(told)):
            raise UserError(f"{path}, line {line}, items: {told!r} is no number of items")
        reference = any(
            h.metric.startswith("delta_") and (i not in numbers or not Fraction(numbers[i].text))
            for i, h in heads.items()
        )
        for i, n in numbers.items():
            head = heads[i]
            cell = PrintedCell(
                *(path.stem, "", group, "", name, params, head.dataset, "", head.metric, n.text),
                *(head.unit, n.std, "", "", told, ", ".join(filter(None, (n.note, head.note)))),
                *(line, Role(reference=reference)),
            )
            cells.append(cell)
    return cells


def _completed(heads: dict[int, ColumnHead]) -> dict[int, ColumnHead]:
    """Return heads with the metrics that they do not name: that of all others, or a score."""
    scores = [h for h in heads.values() if h.unit in ("%", "1") and "trainable" not in h.metric]
    plain = [h for h in scores if h.dataset != "Average" and not h.metric.startswith("delta_")]
    named = {h.metric for h in plain}
    common = named.pop() or "score" if len(named) == 1 else ""
    mean = next((h.dataset for h in scores if h.dataset == "Average"), "")
    result = {}
    for i, head in heads.items():
        metric, dataset = head.metric, head.dataset
        if metric in ("", "delta_"):
            of = common or ("score" if dataset != "Average" else "mean")
            metric += of
        if head.metric == "delta_" and not dataset:
            dataset = mean or (plain[0].dataset if plain else "")
        if (dataset, metric) in {(h.dataset, h.metric) for h in result.values()}:
            dataset = head.text  # another column of the same metric
        result[i] = replace(head, metric=metric, dataset=dataset)
    return result

"""What a reader must know before trusting a table: the remarks below it.

What is missing, failed, mixed or misprinted; by what else than the method rows differ; what the
marks mean, how they were found, and where nothing can be said.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product

from segsweep.results.averages import left_out
from segsweep.results.ceilings import ceiling_remark
from segsweep.results.cells import MISSING, Column, Table
from segsweep.results.details import OUTSIDE
from segsweep.results.over_sets import least, needed
from segsweep.results.pivot import Observation
from segsweep.results.quantiles import LEVEL
from segsweep.results.reported import PRINTED_MEAN
from segsweep.results.sources import counted_elsewhere, judged_elsewhere, measured, mixed_code
from segsweep.results.trace import heading
from segsweep.results.unlearnt import unlearnt
from segsweep.results.wording import QUANTITIES, Values, first, protocol_in_words

TIE, UNSTABLE, RISING = "≈", "†", "↑"
MISPRINT = 0.011  # above what rounding a mean explains
RECIPE = re.compile(r"config\.(hparams|trainer)\.|device\.name$")


def remarks(table: Table, observed: list[Observation], ours: bool) -> list[str]:
    """Return the remarks below a table."""
    every = [
        *unlearnt(table),
        _missing(table, observed) if ours else "",
        _failed(table.runs),
        ceiling_remark(table),
        mixed_code(table.runs),
        measured(table.runs),
        judged_elsewhere(table),
        counted_elsewhere(table),
        left_out(table),
        _mixed(table),
        _printed_means(table, observed),
        *_misprints(table),
        *_noise(table),
        *_unstable(table),
        _floor(table),
        *_tested(table),
        _deltas(table),
        _ranked(table),
        *_unfair(table),
        _rising(table),
    ]
    return [remark for remark in every if remark]


def _missing(table: Table, observed: list[Observation]) -> str:
    """Name the cells without a number; beside published ones, those that only they have."""
    printed = {(o.run.setting, o.column) for o in observed if o.run.values["origin"] == "reported"}
    ours = [row for row in table.rows if row.origin == "ours"]
    if printed and not ours:
        return f"No run of ours belongs to this table yet: {len(printed)} cells to fill."
    columns = [column for column in table.columns if not column.is_mean]
    asked = [(row, column) for row in ours for column in columns]
    if printed:
        asked = [(row, c) for row, c in asked if (row.setting, c.labels) in printed]
    absent = [
        f"{row.setting} on {heading(column)}"
        for row, column in asked
        if table.cell(row, column).text() == MISSING
    ]
    if not absent:
        return ""
    means = "; such rows have no mean" if any(c.is_mean for c in table.columns) else ""
    count = f"{len(absent)} of {len(asked)} cells"
    return f"No finished run yet ({MISSING}, {count}{means}): {first(absent)}."


def _failed(runs: list[Values]) -> str:
    failed = [run for run in runs if run["status"] == "failed"]
    names = [f"{run['id']} ({_reason(run)})" for run in failed]
    return f"{len(failed)} failed: {first(names)}." if failed else ""


def _reason(values: Values) -> str:
    kind, message = (str(values.get(f"error.{word}") or "") for word in ("type", "message"))
    line = message.strip().partition("\n")[0]
    return f"{kind}: {line}"[:100] if line else kind or "no reason recorded"


def _mixed(table: Table) -> str:
    """Say which columns a mean is over when they were not judged alike."""
    groups: dict[tuple[str, str], list[str]] = {}
    for column in _counted(table):
        for metric, protocol in column.kinds:
            groups.setdefault((metric, protocol), []).append(heading(column))
    kinds = {kind: where for kind, where in groups.items() if kind[1]}
    if len(groups) < 2 or not any(column.is_mean for column in table.columns):
        return ""
    parts = [f"{protocol_in_words(*kind)} ({', '.join(where)})" for kind, where in kinds.items()]
    return f"The mean is over measures whose scales are not the same: {'; '.join(parts)}."


def _printed_means(table: Table, observed: list[Observation]) -> str:
    """Name published means that do not follow from the published cells."""
    printed = {o.run.setting: o.run.values.get(PRINTED_MEAN) for o in observed}
    wrong = []
    for row in (row for row in table.rows if row.origin == "reported"):
        there, here = printed.get(row.setting), row.average.value
        if there is not None and here is not None and abs(here - there) > MISPRINT:
            wrong.append(f"{row.setting} {there:g} (its cells: {here:.2f})")
    return f"Means printed otherwise than their cells give: {first(wrong)}." if wrong else ""


def _misprints(table: Table) -> list[str]:
    """Name published numbers that are known to be wrong, and those that can hardly be right."""
    known: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for row, column in product(table.rows, _single(table)):
        places = {name: QUANTITIES[name].heading for name in table.spec.facts}
        for metric, place in (places | {column.metric: heading(column)}).items():
            for run in table.cell(row, column).runs:
                if misprint := run.get(f"source.misprint.{metric}"):
                    words = f"{' '.join(row.labels)}, {place}: {misprint.text}"
                    known[misprint.certain][words] = None
    said = {"Misprinted": known[True], "Doubtful as printed": known[False]}
    return [f"{what}: {first(words)}." for what, words in said.items() if words]


def _single(table: Table) -> list[Column]:
    """Return the columns of one data set each."""
    return [column for column in table.columns if not column.is_mean]


def _counted(table: Table) -> list[Column]:
    """Return those that a mean counts: of each data set one."""
    return [column for column in _single(table) if column.counts]


def _noise(table: Table) -> Iterator[str]:
    """Say by which rule values tie, or why nothing can be said."""
    columns = [column for column in _single(table) if column.direction]
    contests = [(c, e) for c in columns for e in table.contests(c) if len(e.means) > 1]
    if not contests:
        return
    printed = any(cell.printed_sd() for row in table.rows for cell in row.cells.values())
    if known := [(column, e.noise) for column, e in contests if e.noise]:
        spreads = (
            f"s = {noise.sd:.{max(table.decimals(column), 2)}f} on {heading(column)}"
            for column, noise in known
        )
        yield (
            f"{TIE}: may be the best of its column, too: Hsu's comparisons with the best, wrong "
            f"about it in at most 5 % of columns. Noise over seeds, pooled: {first(spreads)}."
        )
    elif printed:
        yield f"{TIE}: within twice the printed spreads of the best, |difference| ≤ 2 √(s₁² + s₂²)."
    else:
        unit = "seed" if any(table.floor(column) for column in columns) else "run"
        yield (
            f"One {unit} per cell: how much of a difference is noise cannot be said; "
            "bold is the highest number, no more."
        )


def _unstable(table: Table) -> Iterator[str]:
    """Name the settings whose runs vary far more than the others'."""
    for column in _single(table):
        for key, seed in table.unstable(column).items():
            row = next(row for row in table.rows if row.labels == key)
            cell, noise = row.cells[column.labels], table.evidence(column, row.origin).noise
            assert noise is not None  # of those that it varies more than
            value = cell.samples[next(iter(cell.samples))][seed]
            yield (
                f"{UNSTABLE} {row.setting} is unstable on {heading(column)}: s = {cell.sd:.2f} "
                f"against {noise.sd:.2f} of the others; farthest is seed {seed} with {value:.2f}. "
                "It is judged by its own spread."
            )


def _floor(table: Table) -> str:
    """Say what runs of the same seed differ by."""
    floors = []
    for column in _single(table):
        if floor := table.floor(column):
            spread = f"{floor[0]:.{max(table.decimals(column), 2)}f}"
            floors.append(f"s = {spread} from {floor[1]} same-seed repeats on {heading(column)}")
    return f"Noise floor: {first(floors)}." if floors else ""


def shown(table: Table, test: str) -> bool:
    """Say whether the paired test of that name could call any row of ours or theirs different."""
    units = [getattr(row, test).units for row in table.rows if getattr(row, test)]
    return bool(units) and least(max(units), len(units)) <= LEVEL


def _tested(table: Table) -> Iterator[str]:
    """Say what the paired tests ask, or how many pairs they would need."""
    rows = [row for row in table.rows if row.here and row.beyond]
    if not rows:
        return
    yield "δ: difference to the reference row, in percent of it (equation 11)."
    asked = {
        "here": ("p on these sets", _pairs(table), "signs flip per pair"),
        "beyond": ("p beyond these sets", "data sets", "signs flip per data set"),
    }
    for test, (name, units, flips) in asked.items():
        most = max(getattr(row, test).units for row in rows)
        have = (
            f"{most} {units if most > 1 else units.replace('sets', 'set').replace('pairs', 'pair')}"
        )
        if shown(table, test):
            yield (
                f"{name} (n): exact two-sided sign-flip test over n {units}, {flips}; *: p ≤ 0.05 "
                f"after Holm's correction for {len(rows)} rows."
            )
        else:
            yield (
                f"{name}: no difference can be significant with {have} and {len(rows)} "
                f"row{'s' if len(rows) > 1 else ''}; {needed(len(rows))} would be needed."
            )


def _pairs(table: Table) -> str:
    """Return what a pair consists of: of a data set, and of model and seed where there are more."""
    places = [place for column in _counted(table) for place in _places(table, column)]
    parts = ["data set"]
    if len(places) > len(set(places)):
        parts.append("model")
    if any(cell.seeds > 1 for row in table.rows for cell in row.cells.values()):
        parts.append("seed")
    return f"pairs of {', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else "data sets"


def _places(table: Table, column: Column) -> set[str]:
    return {place for row in table.rows for place in row.cells[column.labels].samples}


def _deltas(table: Table) -> str:
    """Name the rows whose delta of means and mean of deltas have different signs."""
    rows = {row.labels: row for row in table.rows}
    differ = []
    keys = [column.labels for column in _counted(table)]
    for row in table.rows:
        if row.reference is None or not row.delta:
            continue
        pairs = [(row.cells[k].value, rows[row.reference].cells[k].value) for k in keys]
        single = [100 * (a - b) / b for a, b in pairs if a is not None and b]
        mean = sum(single) / len(single) if single else 0.0
        if mean * row.delta < 0 and abs(mean) >= 0.005:
            differ.append(f"{row.setting} {mean:+.2f}")
    if not differ:
        return ""
    return f"The mean of the data sets' own δ has the other sign: {first(differ)}."


def _ranked(table: Table) -> str:
    if not any(row.rank for row in table.rows):
        return ""
    return (
        "Rank: mean over the data sets, 1 is the best, with a 95 % interval (data sets and seeds "
        "resampled 2,000 times); rows that share a letter cannot be told apart. First: share of "
        "resamples in which the row is the first."
    )


def _unfair(table: Table) -> Iterator[str]:
    """Name what rows differ in beside the method and what their labels say: learning rate, ..."""
    rows = [row for row in table.rows if row.origin == "ours" and row.average.trained]
    runs = {row.labels: [r for c in row.cells.values() for r in c.runs] for row in rows}
    shapes = dict.fromkeys(tuple(run) for several in runs.values() for run in several)
    for key in dict.fromkeys(key for keys in shapes for key in keys if RECIPE.match(key)):
        values = {k: {run.get(key) for run in several} for k, several in runs.items()}
        if OUTSIDE.match(key) or len(set().union(*values.values())) < 2:
            continue
        groups: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            text = " and ".join(sorted(map(_plain, values[row.labels] - {None})))
            groups[text or "not set"].append(row.setting)
        if len(groups) > 1:
            name = "machine" if key == "device.name" else key.rpartition(".")[2]
            parts = (f"{text} ({first(several)})" for text, several in groups.items())
            yield f"Rows differ in {name}, too: {'; '.join(parts)}."


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rising(table: Table) -> str:
    if not any(row.rising() for row in table.rows):
        return ""
    return f"{RISING}: still rising: in most runs the last validation was the best."

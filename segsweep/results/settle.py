"""Which comparisons of a table are open at a margin, and the seeds that would settle them.

A setting is compared with the best of its column, or with the table's reference. It is settled
where it is surely within the margin of it, or surely worse by more. Seeds still needed are the
smallest n with d(n) s sqrt(2 / n) <= |margin - gap|: of both settings, if noise and means stay.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.words import own_folders
from segsweep.results import frame, reported
from segsweep.results.cells import Cell, Column, Key, Row, Table
from segsweep.results.evidence import SEEDS, Evidence, seeds_needed
from segsweep.results.spec import load
from segsweep.results.tables import build
from segsweep.results.unlearnt import unlearnt
from segsweep.results.wording import Values
from segsweep.run.shapes import record_of
from segsweep.sweeps.commands import joined, words_of
from segsweep.sweeps.names import settings
from segsweep.sweeps.sweeper import Combination

FIRST = 3  # seeds of every setting where nothing is known of noise
BESIDE = ("io.", "hydra", "+hydra", "logger")  # words that belong to no setting


@dataclass(frozen=True)
class Unsettled:
    """A setting beside another: by how much it is worse, how far that may be off, seeds needed."""

    row: Row
    base: Row
    gap: float
    reach: float
    seeds: int | None  # of both; None where more than 30 are

    def text(self) -> str:
        """Return "LoRA (r=4): 0.8 worse than Full head ± 1.3, 6 seeds of both"."""
        side = "worse" if self.gap >= 0 else "better"
        need = f"{self.seeds} seeds of both" if self.seeds else f"more than {SEEDS} seeds of both"
        gap = f"{abs(self.gap):.2f} {side} than {self.base.setting} ± {self.reach:.2f}"
        return f"{self.row.setting}: {gap}, {need}"


@dataclass(frozen=True)
class Settlement:
    """What of a column is open, and how many seeds each of its rows should have."""

    table: Table
    column: Column
    evidence: Evidence[Key]
    open: list[Unsettled]
    targets: dict[Key, int]

    @property
    def name(self) -> str:
        """The column's labels and the table's title."""
        return ", ".join(label for label in (self.table.title, *self.column.labels) if label)

    def lines(self) -> list[str]:
        """Return what is said of the column: settled, open, or nothing known yet."""
        unstable = [
            f"  {row.setting}: unstable, one seed is far from the others; look at that run, "
            "more seeds of it settle nothing"
            for row in self.table.rows
            if row.labels in self.evidence.unstable
        ]
        if not self.evidence.known:
            few = min(map(len, self.evidence.runs.values())) < FIRST
            text = "one run of each tells no noise; two more seeds of each are the beginning"
            return [f"{self.name}: {text if few else 'seeds make no difference'}"]
        if not self.open:
            return [f"{self.name}: settled", *unstable]
        head = f"{self.name}: {len(self.open)} of {len(self.evidence.runs)} settings are open"
        if never := sum(comparison.seeds is None for comparison in self.open):
            head += (
                f"; {never} of them would need more than {SEEDS} seeds: that is no way to settle"
            )
        return [head, *(f"  {comparison.text()}" for comparison in self.open), *unstable]

    def described(self) -> dict[str, Any]:
        """Return the column for JSON."""
        noise = self.evidence.noise
        return {
            "table": self.table.title,
            "column": list(self.column.labels),
            "noise": noise.sd if noise else None,
            "settled": self.evidence.known and not self.open,
            "open": [
                {"setting": c.row.setting, "against": c.base.setting}
                | {"gap": c.gap, "reach": c.reach, "seeds": c.seeds}
                for c in self.open
            ],
            "unstable": ["; ".join(key) for key in self.evidence.unstable],
        }


@dataclass(frozen=True)
class MissingSeeds:
    """What is said of a table's columns, the command lines of the missing runs, and what has none.

    `commands` are the words of as few lines as can be.
    """

    settlements: list[Settlement]
    commands: list[Combination]
    faults: list[str]

    def lines(self) -> list[str]:
        """Return all that is said, then the commands as a shell takes them."""
        folders = [word for folder in own_folders() for word in ("--config-dir", str(folder))]
        start = ["python", "-m", "segsweep", *folders, "-m"]
        said = [line for settlement in self.settlements for line in settlement.lines()]
        return [*said, *self.faults, *(shlex.join([*start, *words]) for words in self.commands)]

    def described(self) -> dict[str, Any]:
        """Return the same for JSON."""
        columns = [settlement.described() for settlement in self.settlements]
        return {"columns": columns, "commands": self.commands, "faults": self.faults}


def missing(name: str, margin: float, words: Sequence[str]) -> MissingSeeds:
    """Return what is open in a table of our runs, and the runs that it lacks.

    Args:
        name: of a table in conf/table/, or a yaml file.
        margin: how much worse a setting may be, in the unit of each metric; more than 0.
        words: of where runs are and how they are started, `io.results=...`; part of each command.

    Raises UserError for an unknown table, one without runs or whose runs learnt nothing, a margin
    that is not positive, and words that would make other runs.
    """
    if not margin > 0:
        raise UserError(f"--margin {margin:g}: must be more than 0, in points of the metric")
    for word in words:
        if not word.startswith(BESIDE):
            raise UserError(
                f"--settle {name}: {word} would make other settings, not more seeds of these "
                f"(words may begin with {', '.join(BESIDE)}); `where` in a table chooses runs"
            )
    folders = [word.removeprefix("io.results=") for word in words if word.startswith("io.results=")]
    results = Path(folders[-1] if folders else "results")
    runs = [*reported.read(results), *frame.read(results).runs]
    tables = build(load(name), runs, ("ours",))
    columns = [(table, c) for table in tables for c in table.columns if not c.is_mean]
    judged = [(table, c, e) for table, c in columns if c.direction for e in table.contests(c)]
    settlements = [_settlement(*column, margin) for column in judged]
    if not settlements:
        reasons = [reason for table in tables for reason in unlearnt(table)]
        reasons = reasons or [f"no finished run below {results} belongs to it"]
        raise UserError(f"--settle {name}: {reasons[0]}")
    commands, faults = _commands(settlements, results)
    return MissingSeeds(settlements, [[*line, *words] for line in commands], faults)


def _commands(settlements: list[Settlement], results: Path) -> tuple[list[Combination], list[str]]:
    """Return the command lines of what is missing, and why some of it has none."""
    remembered = settings(results)
    found: list[Combination] = []
    faults: list[str] = []
    for run, seeds in _lacking(settlements):
        try:
            record = record_of(results / "runs" / run["name"])
            words = words_of(record or {}, remembered.get(run["name"], ""))
            found += [[*words, f"seed={seed}"] for seed in seeds]
        except UserError as error:
            faults.append(str(error))
    return joined(found), faults


def _settlement(table: Table, column: Column, known: Evidence[Key], margin: float) -> Settlement:
    """Compare the stable settings of a column, and count the seeds that are needed."""
    numbers = {key: len(values) for key, values in known.runs.items()}
    if not known.known:
        return Settlement(table, column, known, [], dict.fromkeys(numbers, FIRST))
    reaches: list[float] = []
    compared, targets = [], dict.fromkeys(numbers, 0)
    for row, base in _pairs(table, known):
        gap = known.means[base.labels] - known.means[row.labels]
        reach = known.reach(base.labels, row.labels)
        if gap + reach <= margin or gap - reach > margin:
            continue
        reaches = reaches or known.seeds_reach()
        seeds = seeds_needed(reaches, margin - gap)
        if seeds:  # at least one more than there are: noise was pooled over fewer runs than planned
            seeds = max(seeds, min(numbers[row.labels], numbers[base.labels]) + 1)
            targets |= {r.labels: max(seeds, targets[r.labels]) for r in (row, base)}
        compared.append(Unsettled(row, base, gap, reach, seeds))
    return Settlement(table, column, known, compared, targets)


def _pairs(table: Table, known: Evidence[Key]) -> Iterator[tuple[Row, Row]]:
    """Yield each stable row with what it is compared with: its reference, else the best."""
    stable = set(known.stable())
    rows = {row.labels: row for row in table.rows if row.labels in stable}
    best = max(rows.values(), key=lambda row: known.means[row.labels])
    references = {row.reference for row in table.rows}
    for row in rows.values():
        base = rows.get(row.reference, best) if row.reference else best
        if base is not row and row.labels not in references:
            yield row, base


def _lacking(settlements: list[Settlement]) -> Iterator[tuple[Values, range]]:
    """Yield a done run of every setting and data set that lacks seeds, with the next numbers."""
    needed: dict[str, tuple[Values, range]] = {}
    for settlement in settlements:
        cells = {
            row.labels: settlement.table.cell(row, settlement.column)
            for row in settlement.table.rows
        }
        for key, target in settlement.targets.items():
            number = target - len(settlement.evidence.runs[key])
            for run in _examples(cells[key]) if number > 0 else ():
                first = 1 + max(r.get("config.seed", 0) for r in cells[key].runs)
                seeds = range(first, first + number)
                _, before = needed.get(run["name"], (run, range(0)))
                needed[run["name"]] = run, max(before, seeds, key=len)
    yield from needed.values()


def _examples(cell: Cell) -> list[Values]:
    """Return one run of each data set of a cell."""
    return list({run["data_set"]: run for run in reversed(cell.runs)}.values())

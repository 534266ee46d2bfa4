"""A few images of each data set: the objects on them, and what the settings that matter found."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean

from segsweep.base.errors import UserError
from segsweep.results.candidates import Candidate, Contest
from segsweep.results.decision import Decision

IMAGES, RUNS = 3, 3
BUDGET = 1_400_000  # bytes of all pictures of a page


@dataclass(frozen=True)
class PictureRow:
    """One image: its file, and a data URL for each column."""

    file: str
    pictures: list[str]


@dataclass(frozen=True)
class PictureTable:
    """The images of a data set on which the runs disagree most, or why there are none."""

    task: str
    titles: list[str]
    rows: list[PictureRow]
    remark: str = ""
    notes: tuple[str, ...] = ()  # on scores
    about: str = ""  # which images these are, and what is drawn


def galleries(
    contests: list[Contest], decisions: list[Decision], results: Path
) -> list[PictureTable]:
    """Return the pictures of every data set while there is room."""
    tables, left = [], BUDGET
    for contest, decision in zip(contests, decisions, strict=True):
        try:
            table = _table(contest, _directories(contest, decision, results), left)
        except (UserError, OSError) as error:
            table = PictureTable(contest.name, [], [], str(error))
        left -= sum(len(picture) for row in table.rows for picture in row.pictures)
        tables.append(table)
    return tables


def _shown(contest: Contest, decision: Decision) -> list[Candidate]:
    """Return the full head, the choice (or the best below it), the frozen base."""

    def rank(c: Candidate) -> float:
        return -fmean(contest.gains(c)) if c.values else inf

    best = sorted(contest.candidates, key=rank)
    choice = next((c for c in best if c.name == decision.chosen), best[0])
    heads = [c for c in best if c.reference]
    frozen = [c for c in best if not c.trained]
    tried = [c for c in best if c.trained and not c.reference]
    middle = [choice] if choice in tried else tried
    return [*heads[:1], *middle, *frozen[:1]]


def _directories(contest: Contest, decision: Decision, results: Path) -> list[Path]:
    """Return a run that kept predictions of each setting to be shown."""
    from segsweep.run.predictions import FILE

    folders = ([results / "runs" / name for name in c.runs] for c in _shown(contest, decision))
    kept = ([folder for folder in several if (folder / FILE).is_file()] for several in folders)
    directories = [several[0] for several in kept if several]
    if not directories:
        raise UserError(
            "no run kept its predictions; for one of them: python -m segsweep predict "
            "run=ID split=val"
        )
    return directories if len(directories) <= RUNS else [*directories[: RUNS - 1], directories[-1]]


def _table(contest: Contest, directories: list[Path], left: int) -> PictureTable:
    from segsweep.pages.compared.base import compared
    from segsweep.pages.painter import data_url

    comparison = compared(directories, [], "best", 0.5)
    rows = []
    for image in comparison.pictures(IMAGES)[0]:
        row = PictureRow(image.file, [data_url(panel) for panel in image.panels])
        left -= sum(map(len, row.pictures))
        if left < 0:
            break
        rows.append(row)
    remark = "" if rows else "no room left on the page; python -m segsweep compare shows them"
    notes = tuple(comparison.remarks())
    about = comparison.about()[2]
    return PictureTable(contest.name, comparison.titles, rows, remark, notes, about)

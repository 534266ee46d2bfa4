"""A few images of each task: the objects on them, and what the settings that matter found there."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.pages.report.decision import REFERENCE, Decision, Task
from segsweep.results.settings import Values, arrange

IMAGES, RUNS = 3, 3
BUDGET = 1_400_000  # bytes of all pictures of a page
FROZEN = "frozen"


@dataclass(frozen=True)
class Row:
    """One image: its file, and a data URL for each column."""

    file: str
    pictures: list[str]


@dataclass(frozen=True)
class Gallery:
    """The images of a task on which the runs disagree most, or why there are none."""

    task: str
    titles: list[str]
    rows: list[Row]
    remark: str = ""


def galleries(
    tasks: list[Task], decisions: list[Decision], runs: list[Values], results: Path
) -> list[Gallery]:
    """Return the pictures of every task while there is room."""
    found, left = [], BUDGET
    for task, decision in zip(tasks, decisions, strict=True):
        try:
            one = _gallery(task, _directories(task, decision, runs, results), left)
        except (UserError, OSError) as error:
            one = Gallery(task.name, [], [], str(error))
        left -= sum(len(picture) for row in one.rows for picture in row.pictures)
        found.append(one)
    return found


def _directories(task: Task, decision: Decision, runs: list[Values], results: Path) -> list[Path]:
    """Return a run each of the full head, the choice (or the best below) and the frozen base."""
    best = sorted(task.candidates, key=lambda c: -max(c.values, default=0.0) if task.higher else
                  min(c.values, default=inf))  # fmt: skip
    choice = next((one for one in best if one.name == decision.chosen), best[0])
    own = [one for one in best if one.model == choice.model]
    ends = {method: [o for o in own if o.method == method][:1] for method in (REFERENCE, FROZEN)}
    tried = [one for one in own if one.method not in ends]
    middle = [choice] if choice in tried else tried
    asked = [one.name for one in (*ends[REFERENCE], *middle, *ends[FROZEN])]
    model = choice.model
    found: dict[str, Path] = {}
    for run in arrange([run for run in runs if run["status"] == "done"]):
        directory = results / "runs" / run.values["name"]
        if run.model == model and run.data_set == task.name.partition(",")[0]:
            for name in asked:
                if name in (run.setting, f"{run.setting}, {run.model}") and _kept(directory):
                    found.setdefault(name, directory)
    wanted = [found[name] for name in asked if name in found]
    if not wanted:
        raise UserError(
            "no run kept its predictions; for one of them: python -m segsweep predict "
            "run=ID split=val"
        )
    return wanted if len(wanted) <= RUNS else [*wanted[: RUNS - 1], wanted[-1]]


def _kept(directory: Path) -> bool:
    from segsweep.run import predictions

    return (directory / predictions.FILE).is_file()


def _gallery(task: Task, directories: list[Path], left: int) -> Gallery:
    from segsweep.pages import difference
    from segsweep.pages.page import inlined
    from segsweep.pages.panels import TRUTH, gather

    sides = difference.sides(directories, [], "best", 0.5)
    images = difference.contested(sides, IMAGES)
    scenes = gather(sides, {*images})
    rows = []
    for image in images:
        row = Row(scenes[image].record.file, [inlined(one) for one in scenes[image].panels()])
        left -= sum(map(len, row.pictures))
        if left < 0:
            break
        rows.append(row)
    remark = "" if rows else "no room left on the page; python -m segsweep compare shows them"
    return Gallery(task.name, [TRUTH, *(side.label for side in sides)], rows, remark)

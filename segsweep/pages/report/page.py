"""The page: a template, a style sheet and a script become one file that asks for nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from segsweep.pages.report import charts, content
from segsweep.pages.report.content import Content
from segsweep.pages.report.decision import REFERENCE, UNITS, Wishes, decide, gap
from segsweep.pages.report.sentences import WORDS
from segsweep.results.evidence import ENOUGH, FACTOR

MOST = 3_000_000  # bytes of a page
LISTED = 500  # runs of a list


def render(found: Content, wishes: Wishes, pictures: bool = True) -> str:
    """Return the page; pictures are left out where they would make it too large."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from segsweep.pages.report.pictures import galleries

    decisions = [decide(task, wishes) for task in found.tasks]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "short": charts.short,
        "gap": gap,
    }
    values: dict[str, Any] = {
        "content": found,
        "listed": LISTED,
        "panels": charts.MOST,
        "wishes": wishes,
        "tasks": list(zip(found.tasks, decisions, strict=True)),
        "limits": list(dict.fromkeys(n for task in found.tasks for n in task.measures())),
        "tables": [content.shown(table) for table in found.tables],
        "prices": [content.shown(table) for table in found.prices()],
        "published": [content.shown(table) for table in found.published],
        "measured": [content.measured(task) for task in found.tasks],
        "data": data(found, wishes),
    }  # fmt: skip
    drawn = galleries(found.tasks, decisions, found.runs, found.results) if pictures else []
    template = environment.get_template("page.html")
    text = template.render(**values, galleries=drawn)
    return text if len(text.encode()) <= MOST else template.render(**values, galleries=[])


def data(found: Content, wishes: Wishes) -> dict[str, Any]:
    """Return what the script of the page decides by."""
    return {
        "tasks": [asdict(task) for task in found.tasks],
        "wishes": asdict(wishes),
        "words": WORDS,
        "units": UNITS,
        "enough": ENOUGH,
        "factor": FACTOR,
        "reference": REFERENCE,
    }

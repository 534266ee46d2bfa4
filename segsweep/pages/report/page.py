"""The page of a report: all its values in one template, with the script that decides anew."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from segsweep.base import shell
from segsweep.pages.report import charts, content
from segsweep.pages.report.content import ReportContent
from segsweep.pages.report.rank import rank_panel
from segsweep.results.decision import decide
from segsweep.results.details import legend
from segsweep.results.grounds import WORDS, Grounds, brief, signed, terms
from segsweep.results.wishes import Wishes
from segsweep.results.wording import COLUMN, ROW, elided

MOST = 3_000_000  # bytes of a page
LISTED = 500  # runs of a list


def render(report: ReportContent, wishes: Wishes, pictures: bool = True) -> str:
    """Return the page; pictures are left out where they would make it too large."""
    from segsweep.pages.report.pictures import galleries

    decisions = [decide(contest, wishes) for contest in report.contests]
    values: dict[str, Any] = {
        "content": report,
        "listed": LISTED,
        "panels": charts.MOST,
        "wishes": wishes,
        "tasks": list(zip(report.contests, map(Grounds, report.contests), decisions, strict=True)),
        "limits": list(dict.fromkeys(n for c in report.contests for n in c.measures())),
        "tables": content.shown(report.tables),
        "prices": content.shown(report.prices()),
        "published": content.shown(report.published),
        "rank": rank_panel(report.results, list(report.records.values())),
        "shifted": content.shown(report.shifted),
        "shift": charts.shift(report.shifted),
        "measured": [content.measured(contest) for contest in report.contests],
        "symbols": legend(report.runs),
        "short": charts.short,
        "columns": COLUMN,
        "rows": ROW,
        "signed": signed,
        "words": WORDS,
        "data": {
            "tasks": [brief(contest, wishes.floor) for contest in report.contests],
            "wishes": asdict(wishes),
            **terms(),
        },
    }  # fmt: skip
    drawn = galleries(report.contests, decisions, report.results) if pictures else []
    page = partial(shell.render, "pages/report/page.html", {"elided": elided}, **values)
    text = page(galleries=drawn)
    return text if len(text.encode()) <= MOST else page(galleries=[])

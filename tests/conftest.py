"""What all tests share: folders of words end with a test; one line says what was skipped."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest

from segsweep.base.words import FOLDERS, own_folders

NEEDS = {  # what a skipped test says -> what it needs
    r"slurm|munge": "SLURM",
    r"chromium|playwright": "Chromium",
    r"cuda|\bgpu": "a GPU",
    r"SEGSWEEP_GOLDEN|SEGSWEEP_DATA": "the data of tests/data",
}


@pytest.fixture(autouse=True)
def _folders_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the folders that a test names, when it ends."""
    monkeypatch.setenv(FOLDERS, os.pathsep.join(map(str, own_folders())))


def summary(reasons: list[str]) -> str:
    """Return the line that says what skipped tests need, most needed first."""
    needs = Counter(
        next((need for said, need in NEEDS.items() if re.search(said, reason, re.I)), reason)
        for reason in reasons
    )
    parts = [f"{n} need{'s' * (n == 1)} {need}" for need, n in needs.most_common()]
    return f"skipped: {', '.join(parts)}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(summary([str(report.longrepr[2]) for report in skipped]))

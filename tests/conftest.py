"""What all tests share: folders of words end with a test, a browser, a line on what was skipped."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from segsweep.base.words import FOLDERS, own_folders

NEEDS = {  # what a skipped test says -> what it needs
    r"slurm|munge": "SLURM",
    r"chromium|playwright": "Chromium",
    r"cuda|\bgpu": "a GPU",
    r"SEGSWEEP_GOLDEN|SEGSWEEP_DATA": "the data of tests/data",
}


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than cores: tests of SLURM and of sweeps wait more than they compute."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests begin first: none is left to a single process at the end.

    Tests marked `cuda` are skipped where there is no GPU.
    """
    needing = [item for item in items if item.get_closest_marker("cuda")]
    if needing and not import_module("torch").cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a GPU (CUDA)"))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _folders_of_words(_folders_of_modules: None) -> Iterator[None]:
    """Forget the folders that a test names, when it ends."""
    with folders_forgotten():
        yield


@pytest.fixture(autouse=True, scope="module")
def _folders_of_modules() -> Iterator[None]:
    """Forget those that the fixtures of a module name, when its tests end."""
    with folders_forgotten():
        yield


@contextmanager
def folders_forgotten() -> Iterator[None]:
    """Leave the folders of words as they were found."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(FOLDERS, os.pathsep.join(map(str, own_folders())))
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a skipped test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine")
    words = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=words)
        yield chromium
        chromium.close()


def need(reason: str) -> str:
    """Return what a skipped test needs."""
    named = [what for words, what in NEEDS.items() if re.search(words, reason, re.I)]
    module = re.search(r"could not import '(\w+)", reason)
    return named[0] if named else module[1] if module else f"({reason.removeprefix('Skipped: ')})"


def summary(reasons: list[str]) -> str:
    """Return the line that says what skipped tests need, most needed first."""
    needs = Counter(map(need, reasons))
    parts = [f"{n} need{'s' * (n == 1)} {what}" for what, n in needs.most_common()]
    return f"skipped: {', '.join(parts)}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(summary([str(report.longrepr[2]) for report in skipped]))

"""The matrix of docs/studies.md says of every printed number whether it is reproduced here."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from segsweep.base.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^\| (.+) \| (.+) \| (\d+) \| (\w+) \| (.*) \|$", re.MULTILINE)
MEANING = re.compile(r"^\| (\w+) \| [^|]+ \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/make_studies.py as a module."""
    path = ROOT / "scripts" / "make_studies.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_matrix_is_that_of_the_files(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "python scripts/make_studies.py writes it anew"


def test_every_printed_number_is_in_the_matrix_once(script: ModuleType) -> None:
    """By table; and every row of a table by its name, or by that of its model."""
    printed = script.lines("reported.csv")
    found = script.cells(printed, script.lines("studies.csv"))
    parts = re.split(r"^### ", script.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    counts = Counter((line["source"], line["table"]) for line in printed)
    assert found.keys() == counts.keys()
    assert len(parts) == len(counts)
    for (source, table), text in zip(sorted(counts), parts, strict=True):
        assert f"({source}), table {table}\n" in text
        blocks = BLOCK.findall(text)
        assert sum(int(number) for *_, number, _, _ in blocks) == counts[source, table]
        rows = "; ".join(rows for rows, *_ in blocks)
        for model, setting in {cell.row for cell in found[source, table]}:
            whole = rows.startswith("all") or f"{model}: all" in rows
            assert whole or (model in rows and setting in rows), (source, table, model, setting)


def test_what_is_said_of_a_number_has_a_meaning_and_a_reason(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    known = set(MEANING.findall(text.partition("\n## What can be")[2]))
    for _, _, _, verdict, reason in BLOCK.findall(text):
        assert verdict in known
        assert reason or verdict in ("exact", "run")


def test_a_number_of_which_nothing_is_known_is_refused(script: ModuleType) -> None:
    line = script.lines("reported.csv")[0] | {"source": "004", "metric": "speed"}
    with pytest.raises(UserError, match=r"studies\.csv: no line fits .*004.*speed"):
        script.cells([line], script.lines("studies.csv"))


def test_a_line_that_fits_nothing_is_dead(script: ModuleType) -> None:
    """The first line that fits holds; each holds for some number."""
    known, printed = script.lines("studies.csv"), script.lines("reported.csv")
    told = {
        script.known(line, [e | {"reason": str(n)} for n, e in enumerate(known)])
        for line in printed
    }
    assert {int(number) for _, number in told} == {*range(len(known))}

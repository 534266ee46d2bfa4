"""What the documents say can be done: links lead somewhere, commands compose, examples work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from segsweep.__main__ import VERBS
from segsweep.base.config import compose
from segsweep.sweeps.sweeper import configs

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
COMMAND = re.compile(r"python -m segsweep((?: [^\s`#]+)*)")
FILES = re.compile(r"`((?:segsweep|conf|tests|docs|scripts|benchmarks)/[^`\s*<{]+)`")
TESTS = re.compile(r"python -m pytest((?: [\w./]+)+)")


def commands() -> list[str]:
    """Return what follows `python -m segsweep` anywhere in the documents."""
    found = (COMMAND.findall(path.read_text(encoding="utf-8")) for path in DOCUMENTS)
    return sorted({line.replace("--cfg job", "").strip() for lines in found for line in lines})


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tests = [name for line in TESTS.findall(text) for name in line.split()]
    missing = [name for name in [*FILES.findall(text), *tests] if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("line", commands())
def test_commands_compose(line: str) -> None:
    words = shlex.split(line)
    if {*words[:1]} & {*VERBS, "--help", "--config-dir"}:
        return
    if "-m" in words or any(word.startswith("+sweep") for word in words):
        assert next(configs(words))  # the first of its runs; they are composed one by one
    else:
        assert compose(words).hparams.epochs > 0

"""What the documents say can be done: links lead somewhere, commands compose, examples work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import segsweep.peft
from segsweep.__main__ import VERBS
from segsweep.base.config import compose
from segsweep.sweep.sweeper import configs

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
COMMAND = re.compile(r"python -m segsweep((?: [^\s`#]+)*)")
FILES = re.compile(r"`((?:segsweep|conf|tests|docs|scripts|benchmarks)/[^`\s*<{]+)`")
TESTS = re.compile(r"python -m pytest((?: [\w./]+)+)")
EXAMPLE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)


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


def test_examples_of_extending_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = dict(EXAMPLE.findall((ROOT / "docs" / "extend.md").read_text(encoding="utf-8")))
    for name, text in examples.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = str(tmp_path / "segsweep" / "peft")
    monkeypatch.setattr(segsweep.peft, "__path__", [*segsweep.peft.__path__, own])
    words = [Path(name) for name in examples if name.startswith("conf/")]
    assert len(words) >= 3
    place = f"hydra.searchpath=[file://{tmp_path}/conf]"
    found = {word.stem: compose([place, f"{word.parent.name}={word.stem}"]) for word in words}
    assert found["rslora"].peft.scale == pytest.approx(4.0)  # alpha / sqrt(rank) = 16 / 4
    assert found["encoder_only"].peft.train == ["sem_seg_head.pixel_decoder.*"]
    assert found["dolphins"].data.root == "data/dolphins"

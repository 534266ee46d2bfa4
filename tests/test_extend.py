"""The page on extending is true: its files pass the tests of their kind, and train together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
CONTRACTS = {  # test file -> tests of the new word
    "tests/test_peft.py": "shift and not seem_tiny or dense",
    "tests/test_lodgers.py": "dense",
    "tests/test_data_sources.py": "crates",
    "tests/test_backbone_layouts.py": "plain",
    "tests/test_metrics.py": "counting",
}
RUN = """
from pathlib import Path
from tests.layouts import make
from tests.words import compose
from segsweep.run.identity import Run
from segsweep.story import train

here = Path({folder!r})
run = Run(compose(["model=maskdino_plain", "peft=shift", "data=crates", "metrics=counting",
    f"data.root={{make('crates', here / 'set')}}", f"data.cache={{here / 'cache'}}",
    f"io.results={{here / 'results'}}", "hparams.epochs=1", "hparams.batch_size=2",
    "io.progress=false"]))
record = run.once(train)
error = record["metrics"]["count_error"]
print(error["quantity"], "in", error["unit"], record["params"]["trainable"])
"""
COMPOSED = """
from tests.words import compose

assert compose(["peft=narrow"]).peft.size((64,)) == 2 * 64 * 16 + 16 + 64
assert compose(["peft=encoder_only"]).peft.train == ["sem_seg_head.pixel_decoder.*"]
assert compose(["data=dolphins"]).data.root == "data/dolphins"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, each in its place."""
    folder = tmp_path_factory.mktemp("page")
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    for name, text in EXAMPLE.findall(page):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def python(folder: Path, *words: str) -> str:
    """Run Python with the words of the page, and return what it said."""
    known = {"SEGSWEEP_TEST_WORDS": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **known}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_new_words_pass_the_tests_of_their_kind(folder: Path) -> None:
    chosen = " or ".join(f"({which})" for which in CONTRACTS.values())
    said = python(folder, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-k", chosen, *CONTRACTS)
    assert "skipped" not in said
    for file, which in CONTRACTS.items():
        passed = [line for line in said.splitlines() if line.startswith(file) and "PASSED" in line]
        assert any(which.split()[0] in line for line in passed), file


def test_words_of_a_yaml_compose(folder: Path) -> None:
    python(folder, "-c", COMPOSED)


def test_new_words_train_together(folder: Path) -> None:
    said = python(folder, "-c", RUN.format(folder=str(folder / "runs")))
    embeddings = (32 + 1) + 3 * 33 * 32 + 2 * 33 * 32 + 33 * 4  # of classes, masks, boxes
    assert said.splitlines()[-1] == f"count error in things {embeddings + 3 * 32}"  # three seams

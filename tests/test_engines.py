"""Files that start workers: each says what its engine understands, and what `work` does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from segsweep.verbs import work

ROOT = Path(__file__).resolve().parent.parent
ENGINES = sorted((ROOT / "docs" / "engines").iterdir())
SCHEMA = ROOT / "tests" / "data" / "kubernetes" / "job-batch-v1.json"
MOST = 30  # lines
WORK = re.compile(r"-?m,? segsweep,? work,? (.*)")


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name)
def test_engines_start_workers_that_understand(path: Path, monkeypatch) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST
    assert f"engines/{path.name}" in (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (words,) = {match[1] for line in lines if (match := WORK.search(line))}
    asked: list[tuple] = []
    monkeypatch.setattr(work, "Worker", lambda *given: asked.append(given) or Drained())
    assert work.main(shlex.split(words.rstrip("]").replace(",", " "))) == 0
    assert asked[0][1] == "demo"


class Drained:
    """A worker that finds nothing to do."""

    def drain(self) -> int:
        return 0


@pytest.mark.parametrize("path", [p for p in ENGINES if p.suffix == ".sh"], ids=lambda p: p.name)
def test_scripts_are_bash(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_kubernetes_takes_its_job() -> None:
    """Strictly: a key that its schema does not know is a mistake."""
    schema = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    job = yaml.safe_load((ROOT / "docs/engines/kubernetes.yaml").read_text(encoding="utf-8"))
    assert [error.message for error in schema.iter_errors(job)] == []
    job["spec"]["backofLimit"] = 3
    assert "'backofLimit' was unexpected" in next(schema.iter_errors(job)).message

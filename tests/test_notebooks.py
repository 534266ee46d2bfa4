"""Notebooks: what they import is there, one runs, and all stand with what they show."""

from __future__ import annotations

import ast
import base64
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.records import record, write

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.py"))
REMAKE = "`make notebooks` writes it again"
PLACES, TIMES = r"/(?:tmp|root|home|work|opt|usr|var|Users)/", r"\d s\b|\d{4}-\d\d-\d\d|\d:\d\d"
OF_A_MACHINE = re.compile(f"{PLACES}|{TIMES}")
PICTURE = 150_000  # bytes at most
jupytext = pytest.importorskip("jupytext")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each
def test_what_it_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and "segsweep" in node.module:
            package = import_module(node.module)
            for alias in node.names:
                assert hasattr(package, alias.name) or import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "segsweep":
            assert hasattr(import_module("segsweep"), node.attr)


def test_it_explores_the_runs_that_are_there(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    kernels = pytest.importorskip("jupyter_client.kernelspec")
    if "python3" not in kernels.KernelSpecManager().find_kernel_specs():
        pytest.skip("no python3 kernel is installed")
    runs = [record("full_head", 50.0), *[record("lora", 40.0 + r, rank=r) for r in (2, 4)]]
    for directory in write(tmp_path / "results", *runs):
        lines = [{"step": 4, "epoch": 1.0, "lr": 1e-3, "loss": 9.0}, {"step": 4, "epoch": 1.0}]
        lines[1]["segm_AP"] = 30.0
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / "metrics.jsonl").write_text(text)
    (path,) = (path for path in NOTEBOOKS if path.stem == "explore_sweep")
    notebook = jupytext.read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    text = json.dumps(notebook, ensure_ascii=False)
    assert "LoRA (r=4)" in text
    assert "image/png" in text


@each
def test_its_code_is_that_of_the_text(path: Path) -> None:
    pair = jupytext.read(path.with_suffix(".ipynb"))
    cells = [(cell.cell_type, cell.source) for cell in pair.cells]
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    assert cells == wanted, REMAKE


@each
def test_it_stands_with_what_it_shows_and_nothing_of_a_machine(path: Path) -> None:
    cells = [c for c in jupytext.read(path.with_suffix(".ipynb")).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)], REMAKE
    pictures = []
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result"), REMAKE
        assert output.get("name", "stdout") == "stdout"
        data = dict(output.get("data", {"text/plain": output.get("text")}))
        if picture := data.pop("image/png", None):
            pictures.append(len(base64.b64decode(picture)))
        assert OF_A_MACHINE.findall("\n".join(data.values())) == [], REMAKE
    assert pictures
    assert max(pictures) < PICTURE

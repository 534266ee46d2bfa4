"""Notebooks run from top to bottom on the files of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.records import record, write

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
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
    notebook = jupytext.read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    text = json.dumps(notebook, ensure_ascii=False)
    assert "LoRA (r=4)" in text
    assert "image/png" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pair_is_in_step_and_has_no_outputs(path: Path) -> None:
    """`jupytext --sync notebooks/*.py` writes the notebook again."""
    jupytext = pytest.importorskip("jupytext")
    pair = jupytext.read(path.with_suffix(".ipynb"))
    cells = [(cell.cell_type, cell.source) for cell in pair.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in pair.cells)

"""Run the notebooks in an empty folder and write them with what they show.

    make notebooks        or one: .venv/bin/python scripts/remake_notebooks.py paper_tables

They share the folder: first_hour trains what explore_sweep reads. What a forge shows of them is
kept: text and pictures, without times and without paths of this machine.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

from segsweep.base.package import PACKAGE
from segsweep.base.terminal import printable

NOTEBOOKS = PACKAGE.parent / "notebooks"
ORDER = ("first_hour", "explore_sweep", "paper_tables")
TIMED = re.compile(r" in \d+ s\b|^.* \d+ s, peak memory .*\n|^\d+ runs: .* running.*\n", re.M)
WIDTH = 900  # pixels of a picture


def plain(text: str) -> str:
    """Return text without colours, times, trailing spaces and the place of the package."""
    text = TIMED.sub("", printable(text).replace(f"{PACKAGE}{os.sep}", "segsweep/"))
    return re.sub(r"[ \t]+$", "", text, flags=re.M)


def small(picture: str) -> str:
    """Return a PNG of few colours and no more than `WIDTH` pixels across, in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    if image.width > WIDTH:
        image = image.resize(
            (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
        )
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def shown(outputs: list[Any]) -> list[Any]:
    """Return what a cell shows: printed text as one, without what rich makes of it for browsers."""
    kept: list[Any] = []
    for output in outputs:
        data = output.get("data", {})
        if data.get("text/html", "").startswith("<pre"):
            output = nbformat.v4.new_output("stream", name="stdout", text=data["text/plain"])
        if "image/png" in data:
            data["image/png"] = small(data["image/png"])
            data.pop("text/plain", None)
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        elif output.name == "stdout":
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = plain(output.text)
    return [output for output in kept if output.get("text") != ""]


def remake(path: Path, folder: Path) -> None:
    """Run a notebook of text in a folder, and write the one of the same name with outputs."""
    notebook = jupytext.read(path)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=where).execute()
    notebook.metadata.pop("language_info", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = shown(cell.outputs)
    jupytext.write(notebook, path.with_suffix(".ipynb"))


def main() -> None:
    """Run the notebooks that are named, or all."""
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order, however many cores there are
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or ORDER:
            print(name, flush=True)
            remake(NOTEBOOKS / f"{name}.py", Path(folder))


if __name__ == "__main__":
    main()

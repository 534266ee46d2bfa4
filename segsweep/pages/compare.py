"""Runs side by side: ground truth | first run | second run ..., as a figure and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically, write_text
from segsweep.base.shell import render
from segsweep.pages.compared.base import ComparedRuns
from segsweep.pages.painter import data_url, letters
from segsweep.pages.palette import BLACK, WHITE
from segsweep.results.details import legend
from segsweep.results.frame import flatten

CROPS = 12  # objects of each direction that the page shows; the list has all
GAP, HEAD = 8, 34  # pixels between the pictures of the figure, and above them


def write(comparison: ComparedRuns, out: Path, count: int) -> Iterator[Path]:
    """Write the page, the figure and the lists; yield their paths.

    Raises UserError where the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    rows, ways = comparison.pictures(count, CROPS)
    sheet = figure([row.panels for row in rows], comparison.titles)
    write_atomically(out / "figure.png", lambda path: sheet.save(path, "PNG", optimize=True))
    yield out / "figure.png"
    page = render(
        "pages/compare.html",
        comparison=comparison,
        symbols=legend(flatten(run.record) for run in comparison.runs),
        rows=[(row.file, [data_url(panel) for panel in row.panels]) for row in rows],
        pairs=[*zip(comparison.pairs(), ways, strict=True)],
    )
    for name, text in {**comparison.lists(), "index.html": page}.items():
        write_text(out / name, text)
        yield out / name


def figure(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Lay pictures out in rows below the titles of the columns; all columns are equally wide."""
    width = max(picture.width for row in rows for picture in row)
    heights = [max(picture.height for picture in row) for row in rows]
    size = GAP + len(titles) * (width + GAP), HEAD + sum(heights) + GAP * len(heights)
    sheet = Image.new("RGB", size, WHITE)
    draw, font = ImageDraw.Draw(sheet), letters(18)
    for k, title in enumerate(titles):
        middle = GAP + k * (width + GAP) + width / 2, HEAD / 2
        draw.text(middle, title, BLACK, font, anchor="mm")
    y = HEAD
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            sheet.paste(picture, (GAP + k * (width + GAP) + (width - picture.width) // 2, y))
        y += height + GAP
    return sheet

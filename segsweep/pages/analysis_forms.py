"""Analyses of runs as tables on the terminal, as files, and as figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.analysis.matches import TYPES
from segsweep.analysis.study import Analysis
from segsweep.base.csv_files import as_csv, csv_table
from segsweep.base.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

Analyses = Mapping[str, Analysis]
"""By the name of the run."""

LEFT = ("run", "column", "value", "class", "true", "taken for")
FIRST = 12  # classes and confusions of a run that the terminal shows
ERRORS = (
    "dAP: points of AP that each type of error costs (Cls: wrong class, Loc: imprecise outline, "
    "Both, Dupe: found twice, Bkg: nothing there, Miss: not found)"
)


def run_row(name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return what a table says of a run, by column: of objects, or of label maps."""
    row = of_objects(numbers) if "recall" in numbers else of_maps(numbers)
    return {"run": name, "images": numbers["images"], **row}


def of_objects(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return what a table says of objects; AP50 is AP at an IoU of 0.50."""
    errors, recall = numbers["errors"] or {}, numbers["recall"]
    return {
        "IoU": numbers["iou"],
        **({"IoU of": "boxes"} if numbers.get("matched") == "boxes" else {}),
        "score": numbers["score"],
        f"AP{100 * numbers['iou']:.0f}": errors.get("base", {}).get("AP"),
        **{f"recall {size}": objects["recall"] for size, objects in recall.items()},
        **{f"dAP {short}": errors.get(kind, {}).get("dAP") for short, kind in TYPES.items()},
        "calibration error": numbers["calibration"]["ECE"],
    }


def of_maps(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return what a table says of label maps: IoU of images and of regions."""
    return {
        **{f"image IoU {name}": value for name, value in numbers["image_iou"].items()},
        **{f"IoU of {name}": part["IoU"] for name, part in numbers["regions"].items()},
    }


def classes(name: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a table says of the classes of a run of label maps, the lowest IoU first."""
    rows = sorted(numbers.get("classes", ()), key=lambda row: (row["IoU"] is None, row["IoU"]))
    return [{"run": name, **row} for row in rows]


def confusions(name: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a table says of the most frequent mistakes of a run of label maps."""
    columns = ("true", "taken for", "pixels", "percent of true")
    rows = numbers.get("confusions", ())
    return [{"run": name, **dict(zip(columns, row, strict=True))} for row in rows]


def slices(name: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a table says of the slices of a run."""
    return [
        {"run": name, "column": column, "value": value, **metrics}
        for column, by_value in numbers["slices"].items()
        for value, metrics in by_value.items()
    ]


def tables(analyses: Analyses) -> Iterator[Table]:
    """Yield the tables of the runs, and that of their slices if there are any."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for title, columns, rows in _parts(analyses):
        table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
        for column in columns:
            table.add_column(
                column, no_wrap=column in LEFT, justify="left" if column in LEFT else "right"
            )
        for row in rows:
            table.add_row(*(_text(row.get(column)) for column in columns))
        yield table


def _parts(analyses: Analyses) -> Iterator[tuple[str, list[str], list[dict[str, Any]]]]:
    """Yield title, columns and rows of the tables; that of the runs in two, so that it fits."""
    for title, rows in _rows(analyses, FIRST).items():
        errors = [column for column in _columns(rows) if column.startswith("dAP ")]
        if rows:
            yield title, [column for column in _columns(rows) if column not in errors], rows
        if errors:
            yield ERRORS, ["run", *errors], rows


def _rows(analyses: Analyses, first: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table by its title; of a run the first ones of each."""
    runs = {name: analysis.numbers for name, analysis in analyses.items()}
    return {
        "runs": [run_row(*run) for run in runs.items()],
        "classes": [row for run in runs.items() for row in classes(*run)[:first]],
        "confusions": [row for run in runs.items() for row in confusions(*run)[:first]],
        "slices": [row for run in runs.items() for row in slices(*run)],
    }


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Return the columns of all rows: runs may have different metrics."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value)


def write(analyses: Analyses, folder: Path) -> Iterator[Path]:
    """Write all files below a folder; yield their paths."""
    from segsweep.pages.analysis_figures import draw

    for name, analysis in analyses.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        texts = {
            "analysis.json": json.dumps(analysis.numbers, indent=1, allow_nan=False) + "\n",
            **{f"{n}.csv": as_csv([x.columns, *x.rows]) for n, x in analysis.lists.items()},
        }
        for file, text in texts.items():
            write_text(folder / name / file, text)
            yield folder / name / file
        yield from draw(analysis.numbers, folder / name / "figure")
    for title, rows in _rows(analyses).items():
        if rows:
            write_text(folder / f"{title}.csv", csv_table(rows, _columns(rows)))
            yield folder / f"{title}.csv"

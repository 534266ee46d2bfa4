"""A data set under check: what is meant, what its pictures tell, and the report of it all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.base.terminal import printer, watched
from segsweep.data.items import MANIFEST

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.check.parts import JoinedFinding, Part
    from segsweep.check.pictures import Look
    from segsweep.data.base import DataSet

Looks = list[tuple["Part", list["Look"]]]
"""What each picture tells, by part."""

REPORTS = Path("results/check-data")
SCHEMA = 1  # of report.json
STYLES = {"fatal": "bold red", "warning": "yellow", "note": "blue", "good": "green"}
IDS = 8  # of a finding in one part that are listed


def chosen(words: list[str], images: Path | None) -> Config:
    """Return the config of overrides, of a folder, or of a bare file: a data set and a model.

    Raises UserError for what is none of them.
    """
    from segsweep.check.parts import single

    folder = Path(words[0]) if words and Path(words[0]).is_dir() else None
    file = Path(words[0]) if words and "=" not in words[0] and folder is None else None
    bare = single(file, images) if file else None
    if images is not None and bare is None:
        raise UserError("--images: is for one file; a data set is told data.images=")
    from segsweep.base.config import compose
    from segsweep.base.explain import explained

    with explained():
        config = compose(["data=coco", *words[1:]] if folder else words[1:] if file else words)
    if bare:
        config.data = replace(bare, size=config.model.input)
    elif folder:
        config.data = replace(config.data, root=str(folder))
    config.data.needs_masks = config.model.masks
    return config


def look_at(
    data: DataSet, workers: int | None, quiet: bool
) -> tuple[Looks, list[tuple[str, Look, Look]]]:
    """Read everything; return what each picture tells by part, and pairs of copies."""
    from segsweep.check.duplicates import duplicates
    from segsweep.check.parts import classes, parts
    from segsweep.check.pictures import look_at_all

    number = len(classes(data))
    looks: Looks = []
    for part in parts(data):
        results = look_at_all(part, number, workers)
        shown = results if quiet else watched(results, len(part.records), part.name)
        looks.append((part, [*shown]))
        for code, identity, detail in (defect for look in looks[-1][1] for defect in look.defects):
            part.defects.add(code, identity, detail)
    return looks, duplicates(looks)


def described(data: DataSet, looks: Looks, findings: Sequence[JoinedFinding]) -> dict[str, Any]:
    """Return the report as it is written to JSON, where each file has its own findings."""
    from segsweep.check.parts import classes
    from segsweep.check.statistics import numbers

    names = classes(data)
    by_part = {
        part.name: {"file": part.defects.file, **numbers(part_looks, names)}
        for part, part_looks in looks
    }
    verdict, tone = judged(findings)
    return {
        "schema": SCHEMA,
        "name": name_of(data),
        "set": told_apart(data),
        "verdict": verdict,
        "verdict_class": tone,
        "layout": layout(data),
        "classes": names,
        "objects": any(counted["objects"] for counted in by_part.values()),
        "parts": by_part,
        "findings": [asdict(finding) for each in findings for _, finding in each.places],
    }


def judged(findings: Sequence[JoinedFinding]) -> tuple[str, str]:
    """Return the verdict, and its class on the page."""
    levels = [finding.kind.level for finding in findings]
    fatal, warning = levels.count("fatal"), levels.count("warning")
    if fatal:
        many = "s" if fatal > 1 else ""
        return f"Training would be refused: {fatal} fatal finding{many}", "fatal"
    if warning:
        return f"Can be trained on; {warning} warning{'s' if warning > 1 else ''}", "warning"
    return "Nothing wrong was found", "good"


def name_of(data: DataSet) -> str:
    """Return what a report calls a set: its word and the folder that it lies in."""
    root, train = getattr(data, "root", None), getattr(data, "train", None)
    file = Path(train).resolve().parent if isinstance(train, str) else None
    folder = Path(root).resolve() if root else file
    return f"{data.name}-{folder.name}" if folder else data.name


def told_apart(data: DataSet) -> dict[str, str]:
    """Return what tells a set from others: its words, with places as absolute paths."""
    from segsweep.base.config import plain

    words = {key: value for key, value in plain(data).items() if isinstance(value, str) and value}
    return {k: str(Path(v).resolve()) if os.path.exists(v) else v for k, v in words.items()}


def own_folder(report: dict[str, Any]) -> Path:
    """Return the folder of a set's report: its name, with a number where another set has that."""
    number, folder = 1, REPORTS / report["name"]
    while _is_of_another(folder / "report.json", report["set"]):
        number += 1
        folder = REPORTS / f"{report['name']}-{number}"
    return folder


def _is_of_another(file: Path, words: dict[str, str]) -> bool:
    """Tell whether there is a report that does not say that it is of this set."""
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("set") != words
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


def layout(data: DataSet) -> str:
    """Return how a folder of one's own is read, "" of other sets and of files in plain sight."""
    from segsweep.data.sets.coco import Coco

    return str(data.found) if isinstance(data, Coco) and data.found.title else ""


def write(
    report: dict[str, Any],
    findings: Sequence[JoinedFinding],
    looks: Looks,
    pairs: list[tuple[str, Look, Look]],
    folder: Path,
) -> None:
    """Write report.json and report.html. Raises UserError where the folder cannot be made."""
    from segsweep.check import page

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}") from error
    content = {key: value for key, value in report.items() if key != "verdict_class"}
    write_text(folder / "report.json", json.dumps(content, indent=1, allow_nan=False))
    if manifest := looks[0][0].data.manifest():
        write_text(folder / MANIFEST, manifest)
    write_text(folder / "report.html", page.render(report, findings, looks, pairs))


def show(report: dict[str, Any], findings: Sequence[JoinedFinding], folder: Path) -> None:
    """Print a report."""
    from rich.text import Text

    from segsweep.data.findings import SHOWN

    console = printer(highlight=False)
    for finding in findings:
        kind = finding.kind
        head = Text(kind.level, STYLES[kind.level])
        console.print(head.append(f"  {finding.code}  {finding.where}", "default"), soft_wrap=True)
        lines = [kind.what, f"effect: {kind.consequence}", f"cure: {kind.cure}"]
        for name, one in finding.places:
            lines += [f"{name}: {one.examples}"] if one.examples else []
            if len(one.ids) > SHOWN:
                more = f", ... ({len(one.ids)})" if len(one.ids) > IDS else ""
                lines.append(f"{name}, all: " + ", ".join(map(str, one.ids[:IDS])) + more)
        console.print("\n".join("    " + line for line in lines), markup=False, soft_wrap=True)
    console.print(table(report))
    if report["layout"]:
        console.print(f"read as {report['layout']}", markup=False, soft_wrap=True)
    console.print(report["verdict"], style=STYLES[report["verdict_class"]], markup=False)
    names = ("report.html", "report.json", MANIFEST)
    for name in (name for name in names if (folder / name).exists()):
        console.print(f"wrote {folder / name}", markup=False, soft_wrap=True)


def table(report: dict[str, Any]) -> Any:
    """Return counts, sizes and crowding of each part as a table."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD)
    columns = ("", "images", "empty", "objects", "classes", "small/medium/large", "per image")
    for column in (*columns, "overlap", "RGB mean", "RGB std"):
        grid.add_column(column, justify="left" if not column else "right")
    for name, part in report["parts"].items():
        occurring = sum(row["images"] > 0 for row in part["classes"])
        cells = [name, f"{part['images']:,}", f"{part['without']:,}", f"{part['objects']:,}"]
        cells += [str(occurring), "/".join(map(str, part["sizes"].values()))]
        cells.append(span(part["per_image"], "{:.0f}"))
        cells.append(span({k: 100 * v for k, v in part["overlap"].items()}, "{:.0f} %"))
        cells += [" ".join(f"{v:.0f}" for v in part[key]) for key in ("mean", "std")]
        grid.add_row(*cells)
    return grid


def span(quantiles: dict[str, float], form: str) -> str:
    """Return median and maximum."""
    if not quantiles:
        return "-"
    return f"{form.format(quantiles['median'])}, max {form.format(quantiles['max'])}"

"""A data set under check: what is meant, what its pictures tell, and the report of it all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import write_text

if TYPE_CHECKING:
    from segsweep.check.parts import Part
    from segsweep.check.pictures import Look
    from segsweep.data.base import DataSet
    from segsweep.data.findings import Finding

Looks = list[tuple["Part", list["Look"]]]
"""What each picture tells, by part."""

SCHEMA = 1  # of report.json


def chosen(words: list[str], images: Path | None) -> DataSet:
    """Return the data set of overrides, or a bare file. Raises UserError for what is neither."""
    from segsweep.check.parts import single

    if len(words) == 1 and "=" not in words[0]:
        return single(Path(words[0]), images)
    if images is not None:
        raise UserError("--images: is for one file; a data set is told data.images=")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from segsweep.base.config import compose
    from segsweep.base.explain import explain

    try:
        return compose(words).data
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def look_at(
    data: DataSet, workers: int | None, quiet: bool
) -> tuple[Looks, list[tuple[str, Look, Look]]]:
    """Read everything; return what each picture tells by part, and pairs of copies."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from segsweep.check.duplicates import duplicates
    from segsweep.check.parts import classes, parts
    from segsweep.check.pictures import look_at_all

    number = len(classes(data))
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    looks: Looks = []
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as shown:
        for part in parts(data):
            seen = look_at_all(part, number, workers)
            looks.append((part, [*shown.track(seen, len(part.records), description=part.name)]))
            for code, identity, detail in (
                defect for look in looks[-1][1] for defect in look.defects
            ):
                part.defects.add(code, identity, detail)
    return looks, duplicates(looks)


def all_findings(looks: Looks) -> list[Finding]:
    """Return all findings, each once, the worst first."""
    from segsweep.data.findings import ordered

    every = (finding for part, _ in looks for finding in part.findings())
    return ordered({(f.code, f.file, f.what): f for f in every}.values())


def described(data: DataSet, looks: Looks, findings: list[Finding]) -> dict[str, Any]:
    """Return the report as it is written to JSON."""
    from segsweep.check.parts import classes
    from segsweep.check.statistics import numbers

    names = classes(data)
    by_part = {part.name: numbers(part_looks, names) for part, part_looks in looks}
    counts = {level: sum(f.level == level for f in findings) for level in ("fatal", "warning")}
    if counts["fatal"]:
        verdict, tone = f"Training would be refused: {counts['fatal']} fatal", "fatal"
    elif counts["warning"]:
        verdict, tone = f"Can be trained on; {counts['warning']} warnings", "warning"
    else:
        verdict, tone = "Nothing wrong was found", "good"
    root = getattr(data, "root", None)
    name = f"{data.name}-{Path(root).resolve().name}" if root else data.name
    return {
        "schema": SCHEMA,
        "name": name,
        "verdict": verdict,
        "verdict_class": tone,
        "classes": names,
        "objects": any(counted["objects"] for counted in by_part.values()),
        "parts": by_part,
        "findings": [asdict(f) for f in findings],
    }


def write(
    report: dict[str, Any],
    findings: list[Finding],
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
    write_text(folder / "report.html", page.render(report, findings, looks, pairs))

"""The verb `check-data`: everything that is wrong with a data set, before anything is trained.

    python -m segsweep check-data data=coco data.root=path/to/set     any data set
    python -m segsweep check-data train.json --images path            one COCO or VIA file
    python -m segsweep check-data data=coco data.root=a --fix b       write a clean copy

Every annotation and every picture is read. What is found is told on the terminal, as JSON, and as
one page with overlays. The status is 1 if training would be refused (`--strict`: also for
warnings), else 0.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from segsweep.check.parts import Part
    from segsweep.check.pictures import Look
    from segsweep.data.base import DataSet
    from segsweep.data.findings import Finding

SCHEMA = 1  # of report.json


def main(argv: list[str] | None = None) -> int:
    """Check a data set; return 1 if training would be refused."""
    parser = _parser()
    options = parser.parse_args(argv)
    data = chosen(options.what, options.images)
    started = time.monotonic()
    looks, pairs = look_at(data, options.workers, options.quiet)
    from segsweep.base.files import write_text
    from segsweep.check import page, terminal
    from segsweep.data.findings import ordered

    every = (finding for part, _ in looks for finding in part.findings())
    findings = ordered({(f.code, f.file, f.what): f for f in every}.values())
    command = shlex.join(["check-data", *(argv if argv is not None else sys.argv[1:])])
    report = described(data, looks, findings) | {
        "command": command,
        "seconds": round(time.monotonic() - started, 1),
    }
    folder = options.out or Path("results/check-data") / report["name"]
    kept = {key: value for key, value in report.items() if key != "verdict_class"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}") from error
    write_text(folder / "report.json", json.dumps(kept, indent=1, allow_nan=False))
    write_text(folder / "report.html", page.render(report, findings, looks, pairs))
    terminal.show(report, findings, folder)
    if options.fix:
        from segsweep.check.fix import fix

        print(fix(data, looks, options.fix))
    levels = {finding.level for finding in findings}
    return int("fatal" in levels or (options.strict and "warning" in levels))


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
) -> tuple[list[tuple[Part, list[Look]]], list[tuple[str, Look, Look]]]:
    """Read everything; return what each picture tells by part, and pairs of copies."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from segsweep.check.duplicates import duplicates
    from segsweep.check.parts import classes, parts
    from segsweep.check.pictures import look_at_all

    found, names = parts(data), classes(data)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    looks = []
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as shown:
        for part in found:
            own = []
            for look in shown.track(
                look_at_all(part, len(names), workers), len(part.records), description=part.name
            ):
                for code, identity, detail in look.defects:
                    part.defects.add(code, identity, detail)
                own.append(look)
            looks.append((part, own))
    return looks, duplicates(looks)


def described(
    data: DataSet, looks: list[tuple[Part, list[Look]]], findings: list[Finding]
) -> dict[str, Any]:
    """Return the report as it is written to JSON."""
    from segsweep.check.parts import classes
    from segsweep.check.statistics import CROWDING, numbers

    names = classes(data)
    told = {part.name: asdict(numbers(own, names)) for part, own in looks}
    for one in told.values():
        one["crowded"] = list(zip(CROWDING, one.pop("crowding"), strict=False))
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
        "objects": any(one["objects"] for one in told.values()),
        "parts": told,
        "findings": [asdict(f) for f in findings],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep check-data", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="words of the configuration, or one file")
    parser.add_argument("--images", type=Path, help="folder of the pictures of a file")
    parser.add_argument("--out", type=Path, help="folder of the report (results/check-data/NAME)")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a clean copy to a new folder"
    )
    parser.add_argument("--strict", action="store_true", help="status 1 for warnings, too")
    parser.add_argument("--workers", type=int, help="threads (one per core, at most 16)")
    parser.add_argument("--quiet", action="store_true", help="no progress display")
    return parser

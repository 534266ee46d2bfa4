"""The report on the terminal: what is wrong, the worst first, then the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsweep.base.terminal import printer
from segsweep.data.findings import Finding

STYLES = {"fatal": "bold red", "warning": "yellow", "note": "blue", "good": "green"}
IDS = 8  # of a finding that are listed


def show(report: dict[str, Any], findings: Sequence[Finding], folder: Path) -> None:
    """Print a report."""
    from rich.text import Text

    console = printer(highlight=False)
    for finding in findings:
        head = Text(finding.level, STYLES[finding.level])
        console.print(head.append(f"  {finding.code}  {finding.file}", "default"), soft_wrap=True)
        lines = [finding.what, f"does: {finding.consequence}", f"cure: {finding.cure}"]
        if finding.ids:
            more = f", ... ({len(finding.ids)})" if len(finding.ids) > IDS else ""
            lines.append("where: " + ", ".join(map(str, finding.ids[:IDS])) + more)
        console.print("\n".join("    " + line for line in lines), markup=False, soft_wrap=True)
    console.print(table(report))
    console.print(report["verdict"], style=STYLES[report["verdict_class"]], markup=False)
    for name in ("report.html", "report.json"):
        console.print(f"wrote {folder / name}", markup=False, soft_wrap=True)


def table(report: dict[str, Any]) -> Any:
    """Return counts, sizes and crowding of each part as a table."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD)
    columns = ("", "images", "empty", "objects", "classes", "small/medium/large", "per image")
    for column in (*columns, "overlap", "mean", "std"):
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

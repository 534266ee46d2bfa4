"""The findings as a table of the terminal and as a page."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence

from segsweep.audit.cells import COLUMNS, OPTIONAL, by
from segsweep.audit.findings import Certainty, Contradiction
from segsweep.base.terminal import printer

STYLES = {
    Certainty.CERTAIN: "bold red",
    Certainty.LIKELY: "red",
    Certainty.DEFINITION: "cyan",
    Certainty.UNCLEAR: "yellow",
}
MEANINGS = {
    Certainty.CERTAIN: "impossible, whatever was rounded or cut",
    Certainty.LIKELY: "hard to explain otherwise, or right if digits were cut off, not rounded",
    Certainty.DEFINITION: "right, but by different definitions",
    Certainty.UNCLEAR: "stands out, or the words are loose",
}
CELLS = 3  # named in a table; the JSON file has all


def split(findings: Iterable[Contradiction]) -> tuple[list[Contradiction], list[Contradiction]]:
    """Return the findings, and what unprinted digits explain."""
    groups = by(findings, lambda f: f.certainty == Certainty.EXPLAINED)
    return groups.get(False, []), groups.get(True, [])


def summary(findings: Sequence[Contradiction]) -> str:
    """Return how many findings there are, by certainty."""
    counts = by(findings, lambda f: f.certainty)
    parts = [f"{len(counts[c])} {c.value}" for c in Certainty if c in counts]
    return f"{len(findings)} findings" + (f": {', '.join(parts)}" if parts else "")


def cells_of(finding: Contradiction) -> list[str]:
    """Return the names of the first cells, and how many more there are; a claim tells its own."""
    if finding.rule == "claim":
        return []
    names = [f"{cell} = {cell.text}" for cell in finding.cells[:CELLS]]
    more = len(finding.cells) - CELLS
    return [*names, f"and {more} more"] if more > 0 else names


def show(findings: Sequence[Contradiction]) -> None:
    """Print the findings of every source, and what rounding explains."""
    from rich.table import Table
    from rich.text import Text

    console = printer(width=160)
    real, explained = split(findings)
    for source, group in by(real, lambda f: f.place[0]).items():
        grid = Table("finding", "printed", "follows", "why", title=source, title_justify="left")
        grid.show_lines = True
        for finding in group:
            style = STYLES[finding.certainty]
            name = Text.assemble(finding.id, "\n", (finding.certainty.value, style))
            follows = "\n".join([finding.follows, *finding.corrections[:3]])
            why = "\n".join([finding.explanation, *cells_of(finding)])
            grid.add_row(name, *map(Text, (finding.printed, follows, why)))
        console.print(grid)
    for finding in explained:
        line = f"{finding.id}: {finding.printed} against {finding.follows}. {finding.explanation}"
        console.print(f"explained  {line}", markup=False, highlight=False, style="dim")
    console.print(summary(real), markup=False, highlight=False)


def page(findings: Sequence[Contradiction], rules: Mapping[str, Callable]) -> str:
    """Return a Markdown page: the rules, then the findings by source."""
    real, explained = split(findings)
    lines = [
        "# Audit of published numbers",
        "",
        "Written by `python -m segsweep audit --md FILE`. A table is held against itself: every",
        "printed number stands for all numbers that round to it (42.95 for 42.945 to 42.955), and",
        "what such intervals explain is no finding. What is right only if digits were cut off and",
        "not rounded is a slip, but never a certain error of the number.",
        "",
        "A table of one's own, `python -m segsweep audit FILE.csv`, has one number a line, in the",
        f"columns {', '.join(COLUMNS)};",
        f"{', '.join(OPTIONAL)} may stand beside them. A file with other columns is a",
        "leaderboard: a column of names and columns of numbers, separated by commas, semicolons,",
        "tabs or bars, with marks (`**bold**`, `\\textbf{}`, `\\underline{}`), spreads (`a ± s`),",
        "units and arrows. Columns `Avg`, `ΔAP`, `Params (M)` and `n` are known by their heads; a",
        "line with a name only heads a group. Decimal commas are read.",
        "",
        *(f"- **{certainty.value}**: {meaning}" for certainty, meaning in MEANINGS.items()),
        "",
        "## Rules",
        "",
        *(f"- {(inspect.getdoc(rule) or '').splitlines()[0]}" for rule in rules.values()),
        "- In a leaderboard: scores of one column have equally many digits behind the point.",
        "- Sentences of the text, listed in `claims.csv` beside the table, agree with the cells",
        "  that they speak of, also after the misprints are mended.",
        "- Numbers that a recount contradicts are listed in `misprints.csv`.",
        "- What a method trains, and whether it adds anything, is listed in `roles.csv`.",
        "",
        f"{summary(real)}.",
    ]
    for source, group in by(real, lambda f: f.place[0]).items():
        lines += ["", f"## Source {source}", ""]
        for finding in group:
            lines += _entry(finding)
    if explained:
        lines += ["", "## Explained by digits that are not printed", ""]
        for f in explained:
            lines.append(f"- `{f.id}`: {f.printed}, against {f.follows}. {f.explanation}")
    return "\n".join(lines) + "\n"


def _entry(finding: Contradiction) -> list[str]:
    fixes = f" Smallest corrections: {', '.join(finding.corrections[:5])}."
    cells = "; ".join(cells_of(finding))
    return [
        f"- **{finding.id}** ({finding.certainty.value}). Printed: {finding.printed}. "
        f"Follows: {finding.follows}.{fixes if finding.corrections else ''}",
        f"  {finding.explanation}" + (f" Cells: {cells}." if cells else ""),
    ]

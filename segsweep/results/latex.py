"""Tables as LaTeX: booktabs, headings of several rows, everything escaped."""

from __future__ import annotations

from itertools import groupby

from segsweep.results.cells import Table
from segsweep.results.layout import Entry, Sheet, sheet

SYMBOLS = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "“": "``",
    "”": "''",
}
MATHS = {
    "±": r"\pm",
    "≈": r"\approx",
    "≤": r"\le",
    **{character: character for character in "<>|"},
    "−": "-",
    "·": r"\cdot",
    "√": r"\surd",
    "δ": r"\delta",
    "α": r"\alpha",
    "β": r"\beta",
    "κ": r"\kappa",
    "λ": r"\lambda",
    "φ": r"\varphi",
    "²": "^2",
    "₁": "_1",
    "₂": "_2",
}
ESCAPED = str.maketrans(SYMBOLS | {symbol: f"${text}$" for symbol, text in MATHS.items()})


def latex(tables: list[Table]) -> str:
    """Return one floating table per table; the preamble needs `booktabs`."""
    head = "% needs \\usepackage{booktabs}; wide tables: \\usepackage{graphicx} and \\resizebox\n"
    return head + "\n".join(_table(_label(table), sheet(table)) for table in tables)


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it stands; neighbouring formulas are joined."""
    return text.translate(ESCAPED).replace("$$", "")


def _label(table: Table) -> str:
    words = f"{table.spec.name} {table.title}".split()
    return "-".join("".join(c for c in word if c.isalnum() or c == "_") for word in words)


def _table(label: str, page: Sheet) -> str:
    columns = "l" * len(page.stub) + "r" * len(page.head)
    caption = " ".join([f"{page.title}.", page.caption])
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_head(page),
        r"\midrule",
        *_body(page),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {escaped(note)}" for note in page.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(page: Sheet) -> list[str]:
    """Return the rows of headings; those that span several columns are underlined."""
    lines = []
    depth = len(page.head[0]) if page.head else 1
    for level in range(depth):
        last = level == depth - 1
        cells = [escaped(text) if last else "" for text in page.stub]
        rules, at = [], len(page.stub) + 1
        for text, width in page.spans(level):
            spanned = rf"\multicolumn{{{width}}}{{c}}{{{escaped(text)}}}" if width > 1 else None
            cells.append(spanned if spanned and text else escaped(text) + " &" * (width - 1))
            if text and width > 1:
                rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines.append(" & ".join(cells) + r" \\")
        if rules:
            lines.append(" ".join(rules))
    return lines


def _body(page: Sheet) -> list[str]:
    """Return the lines of the body; where rows have several labels, groups are set apart."""
    groups = [list(rows) for _, rows in groupby(page.body, key=lambda row: row[0].text)]
    lines: list[str] = []
    for i, rows in enumerate(groups):
        lines += [r"\addlinespace"] if i and len(page.stub) > 1 else []
        for j, row in enumerate(rows):
            cells = [_entry(entry) for entry in row]
            if j and len(page.stub) > 1:
                cells[0] = ""
            lines.append(" & ".join(cells) + r" \\")
    return lines


def _entry(entry: Entry) -> str:
    text = escaped(entry.marked())
    return rf"\textbf{{{text}}}" if entry.bold else text

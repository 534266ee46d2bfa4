"""What can be wrong with data: one list for training, which refuses or warns, and for check-data.

A finding is data. `fatal` ones would end a run or spoil it in silence, so training refuses them;
`warning`s are dropped, mended or merely suspicious, and training tells their number; `note`s are
worth knowing. Nothing here imports more than the standard library.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from segsweep.base.errors import UserError
from segsweep.data.kinds import KINDS, Kind

LEVELS = ("fatal", "warning", "note")
SHOWN = 3  # examples in a sentence


@dataclass(frozen=True)
class Finding:
    """One kind of defect in one file: which entries have it, what it does, what helps."""

    level: str  # fatal, warning or note
    code: str
    file: str
    ids: list[Any]
    what: str
    consequence: str
    cure: str
    fixable: bool

    @property
    def kind(self) -> Kind:
        """What is common to all findings of its code."""
        return KINDS[self.code]

    @property
    def examples(self) -> str:
        """What its sentence tells of single entries, "" where it tells of none."""
        return self.what.removeprefix(self.kind.what).partition(": ")[2]

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.cure}"


@dataclass
class Findings:
    """Collects defects of one file; all of one code become one finding."""

    file: str
    by_code: dict[str, tuple[list[Any], list[str]]] = field(default_factory=dict)

    def add(self, code: str, identity: Any = None, detail: str = "") -> None:
        """Note a defect; `identity` is an id of the file or a name, None means the file itself."""
        ids, details = self.by_code.setdefault(code, ([], []))
        if identity is not None:
            ids.append(printable(identity) if isinstance(identity, str) else identity)
        if detail and len(details) < SHOWN:
            details.append(printable(detail))

    def listed(self) -> list[Finding]:
        """Return one finding for each code, the worst first."""
        return ordered(
            finding(code, self.file, ids, details) for code, (ids, details) in self.by_code.items()
        )


def printable(text: str) -> str:
    """Return text that can be printed and written, whatever the escapes of a file say."""
    return text.encode(errors="replace").decode()


def finding(code: str, file: str, ids: Sequence[Any] = (), details: Sequence[str] = ()) -> Finding:
    """Return the finding of a code, its sentence made of what it is, how often, and examples."""
    kind = KINDS[code]
    examples = list(details) or [str(identity) for identity in ids[:SHOWN]]
    more = ["..."] if len(ids) > len(examples) > 0 else []
    what = kind.what + (f" ({len(ids)})" if len(ids) > 1 else "")
    what += ": " + ", ".join(examples + more) if examples else ""
    return Finding(
        kind.level, code, file, list(ids), what, kind.consequence, kind.cure, kind.fixable
    )


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by level, the worst first, in the order of KINDS within a level."""
    codes = list(KINDS)
    return sorted(findings, key=lambda f: (LEVELS.index(f.level), codes.index(f.code)))


def accept(findings: Sequence[Finding]) -> None:
    """Go on with what can be used: one warning per file with counts.

    Raises UserError that tells all fatal findings.
    """
    fatal = [f for f in findings if f.level == "fatal"]
    if fatal:
        message = "\n".join(map(str, fatal))
        fixable = all(f.fixable for f in fatal)
        raise UserError(message + ("\n`check-data --fix` writes a clean copy" if fixable else ""))
    for file in dict.fromkeys(f.file for f in findings if f.level == "warning"):
        of_file = [f for f in findings if f.file == file and f.level == "warning"]
        parts = [f.what for f in of_file if not f.kind.drops]
        dropped = [f for f in of_file if f.kind.drops]
        if dropped:
            ids = [identity for f in dropped for identity in f.ids]
            reasons = ", ".join(f"{len(f.ids)} {f.kind.what}" for f in dropped)
            first = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            parts.insert(0, f"{len(ids)} annotations left out ({reasons}): {first}")
        warnings.warn(f"{file}: {'; '.join(parts)}", stacklevel=2)

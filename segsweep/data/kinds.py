"""Every defect of data that is known by a code: what it is, what it does, what helps.

`kinds.csv` beside this file is the table; `docs/check_data.md` shows the same one.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class Kind(NamedTuple):
    """What all findings of a code have in common.

    `fixable`: `--fix` takes care of it. `drops`: what it is about is left out of training. `ids`
    says what ids of its findings are of: annotation, image, category, file, "" where none are told.
    """

    level: str
    what: str
    consequence: str
    cure: str
    fixable: bool
    drops: bool
    ids: str


def _read(path: Path) -> dict[str, Kind]:
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return {
        code: Kind(level, what, consequence, cure, fixable == "yes", drops == "yes", ids)
        for code, level, what, consequence, cure, fixable, drops, ids in rows
    }


KINDS = _read(Path(__file__).with_name("kinds.csv"))

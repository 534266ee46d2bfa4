"""Runs of several results folders as one set: by id, each once, none that contradicts itself.

The same run may lie in several folders: copied there, or trained at two sites. Copies that say the
same are one. Copies that do not are all left out, and named: whichever were taken, a number would
depend on the order of the folders, and a mean of both would count one seed twice. A seed that is
missing is seen in a table; one that was chosen is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segsweep.base.terminal import printable
from segsweep.results.wording import Values, first
from segsweep.run.folder import DELTA, PREDICTIONS, known_hash
from segsweep.run.shapes import record_of

HASHED = (DELTA, PREDICTIONS)  # not the curve, whose lines hold the time


def united(found: Iterable[tuple[str, Values]]) -> tuple[list[Values], list[str]]:
    """Return each run once, and a sentence for each whose copies differ; these are left out.

    `found` are the directories of runs and what they recorded. A copy that finished outweighs one
    that failed; what only one of two copies recorded is no difference.
    """
    copies: defaultdict[str, list[tuple[str, Values]]] = defaultdict(list)
    for directory, run in found:
        copies[run["id"]].append((directory, run))
    runs: list[Values] = []
    differing: list[str] = []
    for name, several in copies.items():
        several = [copy for copy in several if copy[1]["status"] == "done"] or several[:1]
        directories = [directory for directory, _ in several]
        if said := list(_differences(directories)):
            differing.append(printable(f"{name}: {first(said)} in {', '.join(directories)}"))
        else:
            runs.append(several[0][1])
    return runs, differing


def _differences(directories: list[str]) -> Iterator[str]:
    """Yield in what the records of some directories differ, with the values."""
    contents = [_content(Path(copy)) for copy in directories] if len(directories) > 1 else []
    for key in dict.fromkeys(key for content in contents for key in content):
        values = list(dict.fromkeys(content[key] for content in contents if key in content))
        if len(values) > 1:
            yield f"{key} ({', '.join(str(value)[:12] for value in values)})"


def _content(directory: Path) -> dict[str, Any]:
    """Return what a finished run found: its numbers, and the hashes of its files."""
    record = record_of(directory) or {}
    numbers = {name: metric["value"] for name, metric in record.get("metrics", {}).items()}
    hashes = {name: known for name in HASHED if (known := known_hash(record, name))}
    return numbers | hashes

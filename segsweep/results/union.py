"""Runs of several results folders as one set: by id, each once, none that contradicts itself.

The same run may lie in several folders: copied there, or trained at two sites. Copies that say the
same are one. Copies that do not are all left out, and named: whichever were taken, a number would
depend on the order of the folders, and a mean of both would count one seed twice. A seed that is
missing is seen in a table; one that was chosen is not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from segsweep.results.wording import Values, first

CONTENT = re.compile(r"metrics\..+\.value|params\.(trainable|total)|.*\.sha256")
CLOCK = re.compile(r".*curve.*")  # a curve holds the time of each step, so its hash is its own


def united(found: Iterable[tuple[Path, Values]]) -> tuple[list[Values], list[str]]:
    """Return each run once, and a sentence for each whose copies differ; these are left out.

    `found` are the directories of runs and what they recorded. A copy that finished outweighs one
    that failed; what only one of two copies recorded is no difference.
    """
    copies: defaultdict[str, list[tuple[Path, Values]]] = defaultdict(list)
    for directory, run in found:
        copies[run["id"]].append((directory, run))
    runs: list[Values] = []
    differing: list[str] = []
    for name, several in copies.items():
        several = [copy for copy in several if copy[1]["status"] == "done"] or several[:1]
        if said := list(_differences([run for _, run in several])):
            where = ", ".join(str(directory) for directory, _ in several)
            differing.append(f"{name}: {first(said)} in {where}")
        else:
            runs.append(several[0][1])
    return runs, differing


def _differences(runs: list[Values]) -> Iterator[str]:
    """Yield what copies of a run say differently, with its values."""
    for key in dict.fromkeys(key for run in runs for key in run):
        if CONTENT.fullmatch(key) and not CLOCK.fullmatch(key):
            values = list(dict.fromkeys(run[key] for run in runs if key in run))
            if len(values) > 1:
                yield f"{key.removesuffix('.value')} ({', '.join(f'{v}'[:12] for v in values)})"

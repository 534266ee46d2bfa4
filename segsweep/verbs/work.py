"""Train one run from its frozen config: `python -m segsweep work results/runs/<run>`.

No node composes again: what was composed at launch is what runs. Launchers start this verb; where
a run has several devices, once each.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.run.restore import frozen
from segsweep.sweep.slurm import INTENT


def assigned(path: Path) -> Path:
    """Return the run directory that this process is to train.

    Named itself, or by the list of a SLURM array's runs, of which each task takes its own.
    """
    if path.is_dir():
        return path
    runs = (read_json(path, INTENT) or {"runs": []})["runs"]
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    if task >= len(runs):
        raise UserError(f"{path}: neither a run directory nor a list with a run of task {task}")
    return path.parent.parent / runs[task]


def main() -> int:
    """Parse the directory and train."""
    from segsweep.train import train

    parser = argparse.ArgumentParser(prog="segsweep work", description=__doc__)
    parser.add_argument(
        "directory", type=Path, help="a run directory, or the list of runs of a SLURM array"
    )
    run = frozen(assigned(parser.parse_args().directory))
    sys.argv.insert(1, "work")  # Lightning starts the other ranks with this command line
    run.once(train)
    return 0

"""Train one run from its frozen config: `python -m segsweep work results/runs/<run>`.

No node composes again: what was composed at launch is what runs. Launchers start this verb; where
a run has several devices, once each.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segsweep.config import Config, typed
from segsweep.errors import UserError
from segsweep.explain import explain
from segsweep.sweep.files import read_json
from segsweep.sweep.run import Run


def load(directory: Path) -> Config:
    """Read the frozen config of a run directory, wherever it lies now.

    Raises UserError when there is none, or none that this version can read.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} does not exist: not a run directory")
    try:
        cfg = OmegaConf.load(path)
        config = typed(cast("DictConfig", cfg))
    except (OmegaConfBaseException, YAMLError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a config ({explain(error)})") from error
    config.io.results = str(directory.parent.parent)
    return config


def frozen(directory: Path) -> Run:
    """Return the run of a directory.

    Raises UserError when its config names another run now.
    """
    run = Run(load(directory))
    if run.name != directory.resolve().name:
        raise UserError(
            f"{directory}: its config now names the run {run.name}: its data or a default changed "
            "since it was frozen; give the command line that made it again"
        )
    return run


def assigned(path: Path) -> Path:
    """Return the run directory that this process is to train.

    Named itself, or by the list of a SLURM array's runs, of which each task takes its own.
    """
    if path.is_dir():
        return path
    runs = (read_json(path) or {"runs": []})["runs"]
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

"""Train one run from its frozen config: `python -m segsweep work results/runs/<run>`.

No node composes again: what was composed at launch is what runs. Several devices of one machine
start this verb once each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from segsweep.config import Config, typed
from segsweep.errors import UserError
from segsweep.sweep.run import Run, rank


def load(directory: Path) -> Config:
    """Read the frozen config of a run directory.

    Raises UserError when there is none.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} does not exist: not a run directory")
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return typed(cfg)


def main() -> int:
    """Parse the directory and train."""
    from segsweep.train import train

    parser = argparse.ArgumentParser(prog="segsweep work", description=__doc__)
    parser.add_argument("directory", type=Path, help="a run directory that holds a config.yaml")
    run = Run(load(parser.parse_args().directory))
    sys.argv.insert(1, "work")  # Lightning starts the other ranks with this command line
    if rank():  # started by rank 0, which owns the run
        train(run)
    else:
        run.once(train)
    return 0

"""The verb `train`, and the word that may be left out: compose one run, or a sweep, and run it."""

from __future__ import annotations

import os
import subprocess
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import typed
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.words import conf_dir
from segsweep.run.identity import Run, tasked
from segsweep.story import train


def launch(run: Run) -> None:
    """Run once: in this process, or one process per device from the frozen config."""
    trainer = run.config.trainer
    if trainer.devices * trainer.nodes == 1 or tasked(trainer) or run.finished():
        run.once(train)
        return
    if trainer.nodes > 1:
        raise UserError(
            f"trainer.nodes={trainer.nodes}: several nodes need SLURM, one task per device; "
            "say -m hydra/launcher=slurm"
        )
    run.prepare()
    done = subprocess.run([sys.executable, "-m", "segsweep", "work", str(run.directory)])
    if done.returncode:
        raise UserError(f"{run.directory}: its processes ended with status {done.returncode}")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def app(cfg: DictConfig) -> None:
    """Run what the command line composed."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        print(f"[{hydra_cfg.job.num + 1}]", end=" ")
    launch(Run(typed(cfg)))


def main() -> int:
    """Compose and run; every mistake on the command line becomes one clear sentence."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand errors to us instead of printing them
    try:
        app()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    return 0

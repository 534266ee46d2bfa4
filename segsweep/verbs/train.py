"""The verb `train`: train one run, or with -m a sweep; the word itself may be left out."""

from __future__ import annotations

import os
import subprocess
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from segsweep.base.config import typed
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.base.hydra_parts import overrides_of
from segsweep.base.overrides import KEYS, hint, readable
from segsweep.base.words import conf_dir
from segsweep.run.identity import Run, tasked
from segsweep.run.phases import Phases
from segsweep.story import ready, train

GROUP = "train"
ALSO = ("fit", "finetune", "fine-tune", "run", "start", "sweep", "tune", "multirun", "search")


def launch(run: Run) -> None:
    """Run once: in this process, or one process per device from the frozen config."""
    trainer = run.config.trainer
    if not run.finished():
        ready(run.config)  # before a folder says that it has begun
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


alone: list[DictConfig] = []
"""The run of a command line that is no sweep: it trains when Hydra, which would print words of its
own before an error, has ended."""


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def app(cfg: DictConfig) -> None:
    """Take what the command line composed; a sweep's runs train at once."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN:
        alone.append(cfg)
        return
    print(f"[{hydra_cfg.job.num + 1}]", end=" ")
    launch(Run(typed(cfg)))


def spoken(arguments: list[str]) -> list[str]:
    """Return a command line as Hydra takes it: options first, then words that it can read.

    Raises UserError for an option that there is not, and for what is no word of a run.
    """
    words, unknown = overrides_of(arguments)
    for option in unknown:
        raise UserError(f"{option}: there is no such option{hint(option) or KEYS}")
    options = [word for word in arguments if word not in words]
    return [*options, *readable(words)]


def main() -> int:
    """Compose and run; every mistake on the command line becomes one clear sentence."""
    Phases.from_process()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand errors to us instead of printing them
    sys.argv[1:] = spoken(sys.argv[1:])
    with explained():
        app()
        run = Run(typed(alone.pop())) if alone else None
    if run is not None:
        launch(run)
    return 0

"""The story of a run: config -> data -> model -> peft -> fit -> evaluate -> record."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from segsweep.config import conf_dir, typed
from segsweep.errors import UserError
from segsweep.explain import explain
from segsweep.sweep.files import owned
from segsweep.sweep.run import Phases, Run, rank, tasked


def train(run: Run) -> dict[str, Any]:
    """Train and evaluate one run in its directory; return the body of its record."""
    from segsweep import facts, predictions
    from segsweep.analysis import slices, study
    from segsweep.fit import evaluate, fit
    from segsweep.metrics.base import of_classes
    from segsweep.model.feature_cache import cache_features
    from segsweep.module import parameter_groups
    from segsweep.peft.base import base_hash, load_delta
    from segsweep.restore import assemble

    config, phase = run.config, Phases()
    facts.reset_peaks()
    with phase("setup"):
        classes = config.data.classes()
        data = facts.data_facts(config.data, classes)
        slices.check(config)
        model, loaded, counts = assemble(config, classes, config.data.texts())
        cache_features(model, config)
        groups = parameter_groups(model, config.hparams, config.model.roles)
        base = base_hash(model)
        facts.announce(run, counts, loaded, data)
    with phase("train"):
        best = fit(run, model, base) if counts.trainable else None
    if rank(config.trainer):  # the first of several processes evaluates and records
        return {}
    with phase("evaluate"):
        if best is not None:
            load_delta(run.directory / "delta.safetensors", model, base)
        evaluator = evaluate(run, model)
        values = evaluator.compute()
    with phase("analyse"):
        analysis = study.recorded(run)
    record = {
        "metrics": facts.metric_facts(config.metrics, values),
        "classes": of_classes(evaluator),
        "predictions": predictions.facts(run.directory),
        "analysis": analysis,
        "params": facts.count_facts(counts, config.model.name, base),
        "optimizer": facts.optimizer_facts(groups),
        "best": best,
        "data": data,
        "seconds": phase.total(),
        **facts.machine_facts(),
    }
    facts.conclude(run, record)
    return record


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
    with owned(run.directory):
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

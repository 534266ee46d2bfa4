"""The story of a run: config -> data -> model -> peft -> fit -> evaluate -> record."""

from __future__ import annotations

from typing import Any

from segsweep.run.identity import Phases, Run, rank


def train(run: Run) -> dict[str, Any]:
    """Train and evaluate one run in its directory; return the body of its record."""
    from segsweep.analysis import slices, study
    from segsweep.metrics.base import of_classes
    from segsweep.peft.delta import base_hash, load_delta
    from segsweep.run import facts, predictions
    from segsweep.run.features import cache_features
    from segsweep.run.fit import evaluate, fit
    from segsweep.run.module import parameter_groups
    from segsweep.run.restore import assemble

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

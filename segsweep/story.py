"""The story of a run: config -> data -> model -> peft -> fit -> evaluate -> analyse -> record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from segsweep.base.config import Config, plain
from segsweep.base.remarks import plainly
from segsweep.data.items import MANIFEST
from segsweep.model.files import at_hand
from segsweep.run.devices import visible
from segsweep.run.folder import DELTA
from segsweep.run.identity import Phases, Run, rank


def all_ready(configs: Iterable[Config]) -> None:
    """Refuse a sweep before any of it is trained; what several runs share is looked at once."""
    seen: set[str] = set()
    for config in configs:
        key = json.dumps(
            [config.model.weights, config.trainer.accelerator.name, plain(config.data)]
        )
        if key not in seen:
            seen.add(key)
            ready(config)


def ready(config: Config) -> None:
    """Refuse what cannot be trained as far as it shows without torch: data, weights, GPU.

    Nothing is fetched and nothing is written but the cache of converted data. Raises UserError.
    """
    from segsweep.analysis import slices

    at_hand(config.model.weights)
    visible(config.trainer)
    for split in ("train", "val"):
        config.data.records(split)
    config.data.texts()
    if config.data.slices:
        slices.values(config.data, config.data.slices)


@plainly()
def train(run: Run) -> dict[str, Any]:
    """Train and evaluate one run in its directory; return the body of its record.

    What a phase makes is handed on as a value; its files are written once, at its end.
    """
    ready(run.config)
    from segsweep.run import machine

    machine.require(run.config.trainer)
    from segsweep.analysis import slices, study
    from segsweep.metrics.ceiling import ceiling
    from segsweep.peft.delta import base_hash, delta_bytes
    from segsweep.run import messages, record
    from segsweep.run.evaluate import evaluate
    from segsweep.run.features import cache_features
    from segsweep.run.fit import fit
    from segsweep.run.module import parameter_groups
    from segsweep.run.restore import assemble

    config, phase, best, kinds = run.config, Phases(), None, []
    first = rank(config.trainer) == 0  # of several processes it speaks, evaluates and records
    if first and (advice := config.model.advice(config.data)):
        print(advice, flush=True)
    machine.reset_peaks()
    with phase("setup"):
        data = record.data_facts(config.data)
        slices.check(config)
        model, loaded, counts = assemble(config, data["classes"], data["prompts"])
        cache_features(model, config)
        groups = parameter_groups(model, config.hparams, config.model.roles)
        base = base_hash(model)
        if first:
            if manifest := config.data.manifest():
                run.write(MANIFEST, manifest.encode())
            limit = ceiling(config, title="ceiling" if config.io.progress else "")
            data |= {"ceiling": limit.facts()} if limit else {}
            messages.announce(run.name, config.model, loaded, counts, data, limit)
    with phase("train"):
        if counts.trainable:
            best, kinds = fit(run, model, groups)  # leaves the best weights in the model
        if best and first:
            run.write(DELTA, delta_bytes(model, record.delta_facts(run, base, best)))
    if not first:
        return {}
    with phase("evaluate"):
        evaluation = evaluate(run, model)
    with phase("analyse"):
        analysis = study.recorded(config, evaluation.predictions)
    body = {
        "metrics": record.metric_facts(config.metrics, evaluation.values),
        "classes": evaluation.classes,
        "analysis": analysis,
        "params": record.count_facts(counts, config.model.name, base),
        "optimizer": record.optimizer_facts(groups),
        "best": best,
        "data": data,
        "weights": loaded.facts(),
        "seconds": phase.total(),
        **machine.machine_facts(kinds),
    }
    messages.conclude(run, body)
    return body

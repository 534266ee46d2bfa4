"""The story of a run: config -> data -> model -> peft -> fit -> evaluate -> analyse -> record.

And that of a finished one on other data: config -> data -> model -> evaluate -> analyse -> record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segsweep.base.config import Config, plain
from segsweep.base.files import json_text
from segsweep.base.remarks import plainly
from segsweep.data.items import MANIFEST
from segsweep.metrics.ceiling import ceiling
from segsweep.model.files import at_hand
from segsweep.run import messages, record
from segsweep.run.devices import visible
from segsweep.run.elsewhere import Elsewhere
from segsweep.run.folder import DELTA, file_facts
from segsweep.run.identity import Run, now, rank
from segsweep.run.phases import Phases

if TYPE_CHECKING:
    from segsweep.model.weights import LoadReport
    from segsweep.peft.apply import Counts


def all_ready(configs: Iterable[Config]) -> None:
    """Refuse a sweep before any of it is trained; what several runs share is looked at once."""
    seen: set[str] = set()
    for config in configs:
        model, device = config.model, config.trainer.accelerator.name
        key = json.dumps([model.weights, model.masks, device, plain(config.data)])
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
    for split in ("train", "val", config.data.chosen_on):
        config.data.records(split)
    config.data.subject()
    if config.data.slices:
        slices.values(config.data, config.data.slices)


@plainly()
def train(run: Run) -> dict[str, Any]:
    """Train and evaluate one run in its directory; return the body of its record.

    What a phase makes is handed on as a value; its files are written once, at its end.
    """
    ready(run.config)
    from segsweep.analysis import slices, study
    from segsweep.peft.delta import base_hash, delta_bytes
    from segsweep.run import evaluate, features, fit, machine, module, pack, restore

    config, phase = run.config, Phases()
    first = rank(config.trainer) == 0  # of several processes it speaks, evaluates and records
    machine.require(config.trainer)
    slices.check(config)
    machine.reset_peaks()
    if first:
        messages.advise(config)
    with phase("setup"):
        data, subject = record.data_facts(config.data), config.data.subject()
        restore.rehearse(config, data["classes"], subject)
        model, loaded, counts = restore.assemble(config, data["classes"], subject)
        features.cache_features(model, config)
        pack.join(model, run)
        groups = module.parameter_groups(model, config.hparams, config.model.roles)
        base = base_hash(model)
        data |= before_training(run, loaded, counts, data) if first else {}
    with phase("train"):
        fitted = fit.fit(run, model, groups) if counts.trainable else None  # the best weights stay
        if fitted and first:
            run.write(DELTA, delta_bytes(model, record.delta_facts(run, base, fitted.best)))
    if not first:
        return {}
    with phase("evaluate"):
        evaluation = (fitted and fitted.evaluation) or evaluate.evaluate(run, model)
    with phase("analyse"):
        analysis = study.recorded(config, evaluation.predictions)
    body = {
        "metrics": record.metric_facts(config.metrics, evaluation.values),
        "classes": evaluation.classes,
        "analysis": analysis,
        "params": record.count_facts(counts, config.model.name, base),
        "optimizer": record.optimizer_facts(groups),
        "best": fitted and fitted.best,
        "data": data,
        "weights": loaded.facts() | record.licence_facts(config.model),
        "seconds": phase.total(),
        **machine.machine_facts(fitted.kinds if fitted else []),
    }
    messages.conclude(run, body)
    return body


def before_training(
    run: Run, loaded: LoadReport, counts: Counts, data: dict[str, Any]
) -> dict[str, Any]:
    """Keep a split that was decided here, and say what is about to be trained.

    Return what is known of the data by now: their ceiling, if there is one.
    """
    config = run.config
    if manifest := config.data.manifest():
        run.write(MANIFEST, manifest.encode())
    limit = ceiling(config, title="ceiling" if config.io.progress else "")
    messages.announce(run.name, config.model, loaded, counts, data, limit)
    return {"ceiling": limit.facts()} if limit else {}


@plainly()
def judge(judged: Elsewhere) -> dict[str, Any]:
    """Evaluate a finished run on other data; return the record, also one that is there already.

    Raises UserError as `restore` does, and Busy where another process is at it.
    """
    if known := judged.known():
        print(f"done already: {judged.directory}")
        return known
    from segsweep.analysis import slices, study
    from segsweep.run import evaluate, machine, restore

    config, trained, phase = judged.config, judged.trained_record, Phases()
    slices.check(config)
    machine.reset_peaks()
    head = judged.head()
    with phase("setup"):
        restored = restore.restore(judged.trained)
        if config.data.levels and restored.levels:
            config.data.levels = restored.levels  # black and white as the model knows them
    with judged.owning():
        judged.delete("record.json")  # of other weights
        with phase("evaluate"):
            evaluation = evaluate.evaluate(judged, restored.model, judged.name)
        with phase("analyse"):
            analysis = study.recorded(config, evaluation.predictions)
        judged.freeze()
        body = {
            "judges": judged.judges,
            "metrics": record.metric_facts(config.metrics, evaluation.values),
            "classes": evaluation.classes,
            "analysis": analysis,
            "params": trained["params"],
            "data": record.judged_facts(config.data),
            "seconds": phase.total(),
            **machine.machine_facts(),
            "files": file_facts(judged.directory),
        }
        whole = head | body | {"status": "done", "ended": now(), "error": None}
        judged.write("record.json", json_text(whole).encode())
    messages.conclude_elsewhere(judged, whole)
    return whole

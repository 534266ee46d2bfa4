"""The evaluation card of a bundle: what was measured, on what, and what was not."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base import shell
from segsweep.base.errors import UserError
from segsweep.base.terminal import human
from segsweep.data.base import BACKGROUND

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.run.predictions import PredictionFile
    from segsweep.run.restore import Restored

ByClass = list[dict[str, Any]]


def measured(restored: Restored) -> tuple[dict[str, Any] | None, ByClass, str]:
    """Return the analysis of a run, its results by class, and what is lacking and why.

    What the record does not hold is computed from predictions, where they and the data are here.
    """
    from segsweep.analysis import study
    from segsweep.run import predictions

    directory, config, record = restored.directory, restored.config, restored.record
    analysis, classes = record.get("analysis"), record.get("classes") or []
    what, lacking = "objects by class" if analysis else "the analysis of its predictions", ""
    try:
        if analysis is None:
            found = predictions.of_run(directory)
            analysis = study.analyse(config, found, columns=config.data.slices).numbers
        if "classes" in analysis:
            classes = analysis["classes"]
        else:
            classes = by_class(config, predictions.of_run(directory))
    except UserError as error:
        lacking = f"{what}: lacking ({str(error).removeprefix(f'{directory}: ')})"
    return analysis, classes, lacking


def by_class(config: Config, predicted: PredictionFile) -> ByClass:
    """Return objects and the run's metric of each class; one pass over the predictions."""
    data, key = config.data, config.metrics.key
    records = data.records("val")
    evaluators = []
    for k, _ in enumerate(data.classes()):
        of_class = [replace(r, annotations=[a for a in r.annotations if a.category == k])
                    for r in records]  # fmt: skip
        data_of_class = copy(data)
        vars(data_of_class)["records"] = lambda split, of_class=of_class: of_class
        evaluators.append(config.metrics.evaluator(data_of_class, "val"))
    for image_id, predictions in predicted:
        for k, evaluator in enumerate(evaluators):
            evaluator.add(image_id, [p for p in predictions if p["category_id"] == k])
    objects = [a.category for r in records for a in r.annotations if not a.iscrowd]
    return [
        {"class": name, "objects": objects.count(k), key: evaluators[k].compute()[key]}
        for k, name in enumerate(data.classes())
    ]


def render(file: str, restored: Restored, folder: Path, **values: Any) -> str:
    """Return the card or the README of a bundle."""
    from segsweep.task.base import kind

    config, record = restored.config, restored.record
    task = kind(config.data.task)
    data_facts = getattr(config.data, "facts", None)
    delta = folder / "delta.safetensors"
    return shell.render(
        f"exporting/{file}.jinja",
        filters={"number": number, "cell": cell},
        config=config,
        record=record,
        name=folder.name,
        semantic=task.dense,
        placed=task.placed,
        background=restored.background,
        nothing=BACKGROUND,
        kind=task.finds if config.model.masks else f"{task.finds}, as boxes without masks",
        size="x".join(map(str, config.data.size)),
        delta=human(delta.stat().st_size) if delta.is_file() else "none",
        base=base(config) | {"licence": record.get("weights", {}).get("licence", "")},
        licence=data_facts.licence if data_facts else "",
        **values,
    )


def base(config: Config) -> dict[str, str]:
    """Return file and size of the base weights, and whether they come with the package."""
    from segsweep.model.files import PACKAGED, BaseWeights, files_of, locate

    source = config.model.weights
    if source is None:
        return {"file": "none: random weights of the run's seed", "size": "", "have": ""}
    name = source.partition("#")[0].rsplit("/", 1)[-1]
    have = source.startswith(PACKAGED) or BaseWeights.of(source).remote
    try:
        size = human(sum(f.stat().st_size for f in files_of(locate(source, download=False))))
    except UserError:
        size = "not here"
    return {"file": name, "size": size, "have": "" if have else name}


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as the card shows it."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def cell(value: object) -> str:
    """Return a text or a number as one cell of a Markdown table."""
    text = number(value) if value is None or isinstance(value, float) else str(value)
    return shell.markdown_text(text)

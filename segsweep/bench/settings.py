"""What a command line measures beside which base, and the table of it. No torch is imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segsweep.base.config import Config, plain
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.base.terminal import human, printer
from segsweep.data.base import Subject, trainable
from segsweep.run.devices import visible
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.sweeper import Combination, composer, composing, fitting

COLUMNS = ("ms", "IQR", "to base", "CPU to base", "GFLOP", "peak", "delta", "trained")
STEP = ("step ms", "step peak", "training")


@dataclass(frozen=True)
class Plan:
    """How to measure: images of `size` (height, width), with models made for a `subject`.

    Training steps are measured where `train` says so; `images` are those of an epoch, if known.
    """

    size: tuple[int, int]
    subject: Subject
    batches: list[int]  # images at once; 1 is the first
    rounds: int
    warmup: int
    seconds: float  # per size of a batch, after which no round begins
    train: bool = False
    images: int | None = None


@dataclass
class Comparison:
    """A base and the settings, by what they are called, that are measured beside it."""

    base: Config
    settings: dict[str, Config] = field(default_factory=dict)


def comparisons(overrides: Sequence[str]) -> list[Comparison]:
    """Compose the settings of a command line, each once, by the base that they are settings of.

    Raises UserError for words that cannot be composed.
    """
    words = list(overrides)
    if not any(word.startswith("model.weights=") for word in words):
        words.append("model.weights=null")
    by_base: dict[str, Comparison] = {}
    with explained(), composing(words) as (_, combinations):
        compose = composer()
        for combination, config in fitting(combinations, compose):
            _add(combination, config, compose, by_base)
    return list(by_base.values())


def _add(
    combination: Combination, config: Config, compose: Composer, by_base: dict[str, Comparison]
) -> None:
    """Add one setting to its base, unless that has its method already."""
    method = [word for word in combination if word.startswith(("peft=", "peft."))]
    others = [word for word in combination if word not in method]
    base = compose([*others, "peft=frozen"])
    parts = [plain(part) for part in (base.model, base.data, base.trainer)]
    settings = by_base.setdefault(json.dumps(parts), Comparison(base)).settings
    if config.peft not in (base.peft, *(known.peft for known in settings.values())):
        settings[" ".join(method) or f"peft={config.peft.name}"] = config


def show(records: Sequence[dict[str, Any]]) -> None:
    """Print the records of one base as a table."""
    from rich.table import Table

    bench, conditions = records[0]["bench"], records[0]["config"]["bench"]
    details = ", ".join(f"{key} {conditions[key]}" for key in ("size", "classes", "threads"))
    title = f"{records[0]['params']['base']}: {details}, {bench['rounds']} rounds"
    larger = [number for number in bench["images_per_s"] if number != "1"]
    trained = next((r["config"]["bench"]["train"] for r in records if "train" in r["bench"]), None)
    more = [*(f"images/s by {number}" for number in larger), *(STEP if trained else ())]
    grid = Table("setting", title=title, title_justify="left")
    for name in (*COLUMNS, *more):
        grid.add_column(name, justify="right", no_wrap=True)
    for record in records:
        speed = [f"{record['bench']['images_per_s'][number]:.3g}" for number in larger]
        step = _step(record["bench"].get("train")) if trained else []
        grid.add_row(record["setting"], *_cells(record["bench"], record["params"]), *speed, *step)
    printer(width=200 if trained else 160).print(grid)
    print("to base: median over rounds, [95 % interval]; weights: " + bench["weights"])
    if trained:
        print(
            f"step: one of training, unmerged, of {trained['batch']} images, {trained['at_once']} "
            "at once; peak: all that a process of its own holds then, on a GPU all its tensors; "
            "training: as many steps as the epochs have, on one device"
        )


def _cells(bench: dict[str, Any], params: dict[str, Any]) -> list[str]:
    return [
        f"{bench['median_ms']:,.1f}",
        f"{bench['iqr_ms']:,.1f}",
        _ratio(bench["ratio"]),
        _ratio(bench["cpu_ratio"]),
        f"{bench['flops'] / 1e9:,.3f}",
        human(bench["peak_mib"] * 2**20),
        human(bench["checkpoint_bytes"]),
        f"{params['trainable']:,}",
    ]


def _step(train: dict[str, Any] | None) -> list[str]:
    """Return the cells of `STEP`; the base has none."""
    if train is None:
        return [""] * len(STEP)
    whole = "" if train["total_s"] is None else f"{train['total_s'] / 3600:,.2f} h"
    return [f"{train['median_ms']:,.1f}", human(train["peak_mib"] * 2**20), whole]


def _ratio(estimate: dict[str, float | None]) -> str:
    ends = [estimate["low"], estimate["high"]]
    interval = " ".join(f"{end:.3f}" for end in ends if end is not None)
    return f"{estimate['median']:.3f}" + (f" [{interval}]" if interval else "")


def must_train(comparison: Comparison) -> None:
    """Raise UserError for the frozen base alone, several devices, or a GPU that is not here."""
    trainer = comparison.base.trainer
    visible(trainer)
    if (devices := trainer.devices * trainer.nodes) > 1:
        raise UserError(
            f"bench --train: measures steps on one device, not {devices}; leave trainer.devices "
            "and trainer.nodes out"
        )
    if not comparison.settings:
        base = comparison.base.model.name
        raise UserError(
            f"bench --train: peft=frozen has nothing to train on model={base}; choose a method, "
            "as in peft=lora, or leave --train out"
        )


def images(base: Config, number: int | None) -> int | None:
    """Return the images of an epoch: as many as is said, else those of the data, if at hand."""
    if number:
        return number
    try:
        return len(trainable(base.data))
    except UserError:
        return None


def subject(base: Config, number: int | None) -> Subject:
    """Return what the base is built to find: the classes of its data, or as many as is said."""
    try:
        return base.data.subject(number)
    except UserError as error:
        raise UserError(f"{error} (bench needs only the number of classes: --classes N)") from error

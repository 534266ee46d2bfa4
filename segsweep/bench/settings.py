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
from segsweep.data.base import Subject
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.sweeper import Combination, composer, composing, fitting

COLUMNS = ("ms", "IQR", "to base", "CPU to base", "GFLOP", "peak", "delta", "trained")


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
    grid = Table("setting", title=title, title_justify="left")
    for name in (*COLUMNS, *(f"images/s by {number}" for number in larger)):
        grid.add_column(name, justify="right", no_wrap=True)
    for record in records:
        speed = [f"{record['bench']['images_per_s'][number]:.3g}" for number in larger]
        grid.add_row(record["setting"], *_cells(record["bench"], record["params"]), *speed)
    printer(width=160).print(grid)
    print("to base: median over rounds, [95 % interval]; weights: " + bench["weights"])


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


def _ratio(estimate: dict[str, float | None]) -> str:
    ends = [estimate["low"], estimate["high"]]
    interval = " ".join(f"{end:.3f}" for end in ends if end is not None)
    return f"{estimate['median']:.3f}" + (f" [{interval}]" if interval else "")


def subject(base: Config, number: int | None) -> Subject:
    """Return what the base is built to find: the classes of its data, or as many as is said."""
    try:
        return base.data.subject(number)
    except UserError as error:
        raise UserError(f"{error} (bench needs only the number of classes: --classes N)") from error

"""How much each setting of a sweep trains, without weights and without data.

Models are built on the meta device: shapes only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from segsweep.base.config import Config, plain

if TYPE_CHECKING:
    from segsweep.model.family import Family
    from segsweep.peft.apply import Counts


@dataclass(frozen=True)
class SettingSize:
    """Counts of one setting; `setting` holds all fields of the method and of the model."""

    model: str
    peft: str
    label: str
    setting: dict[str, Any]
    classes: int
    counts: Counts


def sizes(
    configs: Iterable[tuple[list[str], Config]], classes: Callable[[Config], int]
) -> list[SettingSize]:
    """Count every setting's parameters for as many classes as `classes` says.

    Runs that differ in their data or seed alone are one setting.
    """
    import torch

    from segsweep.peft.apply import apply

    bases: dict[str, Any] = {}
    rows: dict[tuple[str, str], list[SettingSize]] = {}
    for overrides, config in configs:
        number = classes(config)
        subject = config.data.subject(number)
        base = json.dumps([plain(config.model), asdict(subject)])
        method = json.dumps(plain(config.peft))
        if (base, method) in rows:
            continue
        if base not in bases:
            with torch.device("meta"):
                bases[base] = config.model.build(subject)
        label = " ".join(word[5:] for word in overrides if word.startswith("peft."))
        words, readings = (config.model.name, config.peft.name), []
        for title, reading in config.model.readings.items():
            counts = apply(copy.deepcopy(bases[base]), config.peft, reading.roles)
            setting = setting_of(config, reading)
            size = SettingSize(*words, f"{label} {title}".strip(), setting, number, counts)
            readings.append(size)
        if len({row.counts for row in readings}) == 1:
            readings = [replace(readings[0], label=label)]
        rows[base, method] = readings
    return [row for readings in rows.values() for row in readings]


def setting_of(config: Config, model: Family) -> dict[str, Any]:
    """Return all fields of the method, and of the model as `model.<key>`."""
    fields = {f"model.{key}": value for key, value in plain(model).items()}
    return {**plain(config.peft), **fields}
